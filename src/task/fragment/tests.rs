use super::*;
use proptest::prelude::*;

fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
}
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}
/// One track's `traf` as our encoder writes it: defaults in `tfhd`, own size for each sample, first sample's flags.
fn traf(track: u32, start: u32, offset: u32, sizes: &[u32]) -> Vec<u8> {
    let tfhd = boxed(b"tfhd", &words(&[0x02_0038, track, 3000, 7, 0x0101_0000]));
    let tfdt = boxed(b"tfdt", &words(&[0x0100_0000, 0, start]));
    let head = [0x205, sizes.len() as u32, offset, 0x0200_0000];
    let trun = boxed(b"trun", &words(&[&head[..], sizes].concat()));
    boxed(b"traf", &[tfhd, tfdt, trun].concat())
}
/// A segment of two tracks, payload of each 10 bytes.
fn segment(start: u32) -> Vec<u8> {
    let build = |offset: u32| {
        let mfhd = boxed(b"mfhd", &words(&[0, 1]));
        let one = traf(1, start, offset, &[4, 6]);
        let two = traf(2, start, offset + 10, &[10]);
        boxed(b"moof", &[mfhd, one, two].concat())
    };
    let offset = build(0).len() as u32 + 8;
    [build(offset), boxed(b"mdat", b"vvvvVVVVVVaaaaaaaaaa")].concat()
}

#[test]
fn runs_carry_times_sizes_places_and_keyframes() {
    let bytes = segment(192_000);
    let fragment = read_fragment(&bytes).unwrap();
    let video = fragment.run(1).unwrap();
    let (at, count) = video.chunks[0];
    assert_eq!((video.start, video.end(), count), (192_000, 198_000, 2));
    assert_eq!(&bytes[at as usize..][..10], b"vvvvVVVVVV");
    let got: Vec<_> = video.samples.iter().map(|s| (s.size, s.sync)).collect();
    assert_eq!(got, [(4, true), (6, false)]);
    let (at, _) = fragment.run(2).unwrap().chunks[0];
    assert_eq!(&bytes[at as usize..][..10], b"aaaaaaaaaa");
}

#[test]
fn fragments_in_one_segment_are_joined_if_they_follow_each_other() {
    let both = [segment(0), segment(6000)].concat();
    // The second track of the pair is only 3000 long, so it leaves a gap.
    let error = read_fragment(&both).unwrap_err();
    let gap = FragmentError::Discontinuous { track: 2, expected: 3000, found: 6000 };
    assert_eq!(error, gap);
    assert!(error.to_string().contains("6000") && error.to_string().contains("3000"));
    let styp = boxed(b"styp", b"msdh");
    let one = [styp, segment(0)].concat();
    assert_eq!(read_fragment(&one).unwrap().run(1).unwrap().samples.len(), 2);
}

#[test]
fn what_a_recording_never_holds_is_refused_by_name() {
    let good = segment(0);
    let find = |kind: &[u8]| good.windows(4).position(|w| w == kind).unwrap();
    let with = |at: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        read_fragment(&bytes).unwrap_err().to_string()
    };
    assert!(with(find(b"tfhd") + 4, 0x38).contains("default_base_moof"));
    assert!(with(find(b"tfhd") + 4, 0x02_0030).contains("duration"));
    // A size that reaches out of the mdat, an offset before the file, more samples than there are fields.
    assert!(with(find(b"trun") + 20, 5000).contains("not inside"));
    assert!(with(find(b"trun") + 12, 0x8000_0000).contains("not inside"));
    assert!(with(find(b"trun") + 8, u32::MAX).contains("too short"));
    assert!(with(find(b"mdat") - 4, 4000).contains("mdat"));
    assert!(read_fragment(b"").unwrap_err().to_string().contains("moof"));
}

#[test]
fn many_runs_over_the_same_bytes_cannot_multiply_the_samples() {
    // Found while writing: sizes by default and overlapping runs would make samples out of nothing.
    let runs: Vec<u8> = (0..500).flat_map(|_| boxed(b"trun", &words(&[0x1, 1000, 500 * 20 + 68]))).collect();
    let tfhd = boxed(b"tfhd", &words(&[0x02_0038, 1, 1, 1, 0]));
    let tfdt = boxed(b"tfdt", &words(&[0, 0]));
    let traf = boxed(b"traf", &[tfhd, tfdt, runs].concat());
    let bytes = [boxed(b"moof", &traf), boxed(b"mdat", &[0; 1000])].concat();
    let error = read_fragment(&bytes).unwrap_err();
    assert!(matches!(error, FragmentError::Outside { sample: 1000, .. }), "{error}");
}

proptest! {
    #[test]
    fn garbage_is_an_error_or_a_run_inside_the_bytes(
        changes in proptest::collection::vec((0usize..400, any::<u8>()), 0..12),
        cut in 0usize..400,
    ) {
        let mut bytes = segment(0);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if cut < bytes.len() {
            bytes.truncate(bytes.len() - cut / 8);
        }
        if let Ok(fragment) = read_fragment(&bytes) {
            for run in fragment.runs {
                prop_assert!(run.samples.len() <= bytes.len());
                let counted: u64 = run.chunks.iter().map(|c| u64::from(c.1)).sum();
                prop_assert_eq!(counted, run.samples.len() as u64);
            }
        }
    }
}
