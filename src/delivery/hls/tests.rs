use super::*;
use proptest::prelude::*;

fn entry(n: u64, samples: u64) -> Entry {
    Entry { uri: format!("s/1-{n:08}.m4s"), samples, bytes: 1000 + n, wall_ms: None, discontinuity: false, init: None }
}

#[test]
fn a_playlist_is_what_the_standard_says() {
    let key = KeyTag { uri: "https://example.com/key?class=7".into(), iv: Some("00".repeat(16)) };
    let mut list = Playlist::new("0123".into(), 76_800, Some(key));
    let init = |name: &str| Some(name.to_string());
    list.entries = vec![
        Entry { init: init("s/init-a.mp4"), wall_ms: Some(1_790_000_000_123), ..entry(0, 76_800) },
        entry(1, 76_800),
        Entry { init: init("s/init-b.mp4"), discontinuity: true, wall_ms: Some(1_790_000_010_000), ..entry(2, 38_400) },
    ];
    let growing = "#EXTM3U\n#EXT-X-VERSION:6\n# panorec 0123\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"s/init-a.mp4\"\n\
         #EXT-X-KEY:METHOD=AES-128,URI=\"https://example.com/key?class=7\",IV=0x00000000000000000000000000000000\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-09-21T14:13:20.123Z\n# 1000\n#EXTINF:1.600000,\ns/1-00000000.m4s\n\
         # 1001\n#EXTINF:1.600000,\ns/1-00000001.m4s\n#EXT-X-DISCONTINUITY\n#EXT-X-KEY:METHOD=NONE\n\
         #EXT-X-MAP:URI=\"s/init-b.mp4\"\n\
         #EXT-X-KEY:METHOD=AES-128,URI=\"https://example.com/key?class=7\",IV=0x00000000000000000000000000000000\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-09-21T14:13:30.000Z\n# 1002\n#EXTINF:0.800000,\ns/1-00000002.m4s\n";
    assert_eq!(list.text(), growing);
    assert_eq!(list.wall_ms(), Some(1_790_000_010_800));
    list.ended = true;
    let ended = growing.replace(":EVENT", ":VOD") + "#EXT-X-ENDLIST\n";
    assert_eq!(list.text(), ended);
    assert_eq!(Playlist::read(&ended), Some(list));
}

#[test]
fn the_newest_segments_alone_are_a_playlist_of_their_own() {
    let mut list = Playlist::new("0123".into(), 76_800, None);
    let init = |name: &str| Some(name.to_string());
    list.entries = vec![
        Entry { init: init("s/init-a.mp4"), wall_ms: Some(1_790_000_000_000), ..entry(0, 76_800) },
        Entry { init: init("s/init-b.mp4"), discontinuity: true, ..entry(1, 76_800) },
        entry(2, 96_000),
        Entry { discontinuity: true, ..entry(3, 76_800) },
        entry(4, 76_800),
    ];
    let head = "#EXTM3U\n#EXT-X-VERSION:6\n# panorec 0123\n#EXT-X-TARGETDURATION:2\n";
    assert_eq!(
        list.newest(2).text(),
        format!(
            "{head}#EXT-X-MEDIA-SEQUENCE:3\n#EXT-X-DISCONTINUITY-SEQUENCE:2\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MAP:URI=\"s/init-b.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-09-21T14:13:25.200Z\n\
             # 1003\n#EXTINF:1.600000,\ns/1-00000003.m4s\n# 1004\n#EXTINF:1.600000,\ns/1-00000004.m4s\n"
        )
    );
    let all = list.newest(9);
    assert_eq!((all.entries.len(), all.window), (5, Some(Window { segments: 0, discontinuities: 0 })));
    assert!(!all.text().contains("PLAYLIST-TYPE"), "it may lose its beginning");
}

#[test]
fn somebody_elses_playlist_is_not_ours() {
    for text in ["", "#EXTM3U\n", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n", "<html>"] {
        assert_eq!(Playlist::read(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn a_playlist_is_read_back_to_the_sample(
        parts in prop::collection::vec((1u64..400_000, prop::option::of(0u64..4_000_000_000_000), any::<bool>(), 0u8..8), 0..40),
        ended: bool,
    ) {
        let mut list = Playlist::new("ab".into(), 128_000, None);
        prop_assert_eq!(list.target_seconds, 3);
        list.ended = ended;
        for (n, (samples, wall_ms, discontinuity, init)) in parts.into_iter().enumerate() {
            let init = (n == 0 || init == 0).then(|| format!("s/init-{n}.mp4"));
            list.entries.push(Entry { wall_ms, discontinuity, init, ..entry(n as u64, samples) });
        }
        prop_assert_eq!(Playlist::read(&list.text()), Some(list));
    }
}
