use super::*;
use std::time::Duration;

/// A segment whose bytes are its own.
fn segment(index: u64, length: usize) -> EncoderOutput {
    let bytes = (0..length as u64).map(|at| (index * 31 + at / 7) as u8).collect();
    EncoderOutput::Segment(Segment { index, bytes, runs: Vec::new(), samples: 1 })
}

/// Puts in what there is room for.
async fn put(inlet: &mut Inlet, output: EncoderOutput) {
    tokio::time::timeout(Duration::from_secs(60), inlet.send(output)).await.expect("there is room");
}

/// Lengths in no order: from a few bytes to more than all the memory there is.
fn length(index: u64) -> usize {
    (index * 2_654_435_761 % 9_000) as usize + 1
}

async fn taken(outlet: &mut Outlet) -> (u64, Bytes) {
    match outlet.recv().await {
        Some(Ok(EncoderOutput::Segment(segment))) => (segment.index, segment.bytes),
        other => panic!("{other:?}"),
    }
}

fn bytes_of(output: EncoderOutput) -> Bytes {
    let EncoderOutput::Segment(segment) = output else { panic!("{output:?}") };
    segment.bytes
}

#[tokio::test]
async fn what_waits_comes_out_as_it_came_in_however_often_the_file_is_written_over() {
    let (mut inlet, mut outlet) = backlog(Bounds { memory: 8, disk: 64, segments: 100 });
    put(&mut inlet, EncoderOutput::Init(Bytes::from_static(b"init"))).await;
    assert!(matches!(outlet.recv().await, Some(Ok(EncoderOutput::Init(_)))));
    let (mut sent, mut got, mut longest) = (0, 0, 0);
    while got < 1000 {
        // Five to nine wait, so that the file is never empty once it has begun.
        while sent < got + 5 + got % 5 {
            put(&mut inlet, segment(sent, length(sent))).await;
            sent += 1;
        }
        let (index, bytes) = taken(&mut outlet).await;
        assert_eq!(index, got);
        assert!(bytes == bytes_of(segment(got, length(got))), "segment {got}");
        got += 1;
        let file = inlet.shared.ring().file.clone();
        longest = longest.max(file.map_or(0, |f| f.metadata().unwrap().len()));
    }
    assert!((32 << 10..=64 << 10).contains(&longest), "{longest} bytes of the file were used");
    put(&mut inlet, EncoderOutput::Ended(Ok(()))).await;
    drop(inlet);
    while let Some(output) = outlet.recv().await {
        output.unwrap();
    }
    assert!(outlet.shared.ring().file.is_none(), "with the last one the disk gets its room back");
}

#[tokio::test(start_paused = true)]
async fn beyond_its_bounds_it_waits_and_with_room_it_goes_on() {
    for (bounds, most) in [
        (Bounds { memory: 8, disk: 32, segments: 1000 }, 40),
        (Bounds { memory: 8, disk: 32, segments: 17 }, 17),
        (Bounds { memory: 8, disk: 0, segments: 1000 }, 8),
    ] {
        let (mut inlet, mut outlet) = backlog(bounds);
        for index in 0..most {
            put(&mut inlet, segment(index, 1024)).await;
        }
        let next = inlet.send(segment(most, 1024));
        tokio::pin!(next);
        let waited = tokio::time::timeout(Duration::from_secs(60), &mut next).await;
        assert!(waited.is_err(), "{bounds:?} takes more than {most}");
        assert_eq!(taken(&mut outlet).await.0, 0);
        // It waits for room on disk, where there is a disk; memory may be free before.
        for index in 1..most {
            assert_eq!(taken(&mut outlet).await.0, index);
        }
        next.await;
        assert_eq!(taken(&mut outlet).await.0, most);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_leaves_what_memory_holds_and_one_that_cannot_be_read_says_so() {
    let (mut inlet, mut outlet) = backlog(Bounds { memory: 4, disk: 64, segments: 100 });
    // Nothing can be written to it.
    let broken = || Some(Arc::new(File::open("/dev/null").unwrap()));
    inlet.shared.ring().file = broken();
    put(&mut inlet, segment(0, 4096)).await;
    {
        let second = inlet.send(segment(1, 4096));
        tokio::pin!(second);
        assert!(tokio::time::timeout(Duration::from_secs(60), &mut second).await.is_err(), "it waits for memory");
        assert_eq!(taken(&mut outlet).await.0, 0);
        second.await;
    }
    // The disk has room again.
    put(&mut inlet, segment(2, 4096)).await;
    put(&mut inlet, segment(3, 4096)).await;
    assert_eq!((taken(&mut outlet).await.0, taken(&mut outlet).await.0), (1, 2));
    inlet.shared.ring().file = broken();
    let unread = outlet.recv().await.unwrap().unwrap_err();
    assert_eq!((unread.kind, unread.key.as_str()), (StoreErrorKind::Refused, "segment 3"));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_is_let_go_when_nobody_takes_any_more() {
    let (mut inlet, outlet) = backlog(Bounds { memory: 1, disk: 1, segments: 100 });
    let waits = tokio::spawn(async move {
        for index in 0..10 {
            inlet.send(segment(index, 1024)).await;
        }
    });
    tokio::task::yield_now().await;
    drop(outlet);
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("it is let go").unwrap();
}
