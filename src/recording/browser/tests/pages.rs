//! What pages do, and what must not come of it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_person() {
    let bench = Bench::shown().await;
    assert!(bench.open("/dialogs").await.unwrap().complete);
    assert_eq!(bench.clicked("answers").await, json!([null, true, "default"]));
    bench.clicked("window.before = 1").await; // and the click that beforeunload needs
    assert!(bench.browser.reload(LoadBounds::default()).await.unwrap().complete);
    assert_eq!(bench.clicked("typeof before").await, json!("undefined"));
    bench.open("/ok").await.unwrap();
    for (expression, expected) in [
        ("Notification.requestPermission()", json!("denied")),
        ("new Promise((r) => navigator.geolocation.getCurrentPosition(r, (e) => r(e.code)))", json!(1)),
        ("navigator.mediaDevices.getUserMedia({ video: true }).catch((e) => 'none')", json!("none")),
        ("print(), 'printed'", json!("printed")),
        ("location = 'mailto:a@b.c', location = 'meeting://x', 'stayed'", json!("stayed")),
        ("Object.assign(document.createElement('input'), { type: 'file' }).click(), 'chosen'", json!("chosen")),
        ("new AudioContext().state", json!("running")),
    ] {
        assert_eq!(bench.clicked(expression).await, expected, "{expression}");
    }
    assert_eq!(bench.clicked("location.pathname").await, json!("/ok"));
    bench.clicked("window.was = frames").await;
    bench.eventually("frames > was + 5", json!(true)).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_works_without_hardware_and_beside_the_guard() {
    let bench = Bench::shown().await;
    bench.open("/ok").await.unwrap();
    // A call inside the page: UDP, which does not go through the guard.
    let call = "(async () => {
        const a = new RTCPeerConnection(), b = new RTCPeerConnection();
        a.onicecandidate = (e) => e.candidate && b.addIceCandidate(e.candidate);
        b.onicecandidate = (e) => e.candidate && a.addIceCandidate(e.candidate);
        const heard = new Promise((r) => b.ondatachannel = (e) => e.channel.onmessage = (m) => r(m.data));
        const channel = a.createDataChannel('c');
        channel.onopen = () => channel.send('heard');
        await a.setLocalDescription();
        await b.setRemoteDescription(a.localDescription);
        await b.setLocalDescription();
        await a.setRemoteDescription(b.localDescription);
        return heard;
    })()";
    let webgl = "(() => {
        const gl = document.createElement('canvas').getContext('webgl2');
        return gl?.getParameter(gl.getExtension('WEBGL_debug_renderer_info').UNMASKED_RENDERER_WEBGL)
            .includes('SwiftShader');
    })()";
    for (expression, expected) in [
        (call, json!("heard")),
        (webgl, json!(true)),
        ("MediaSource.isTypeSupported('video/mp4; codecs=\"avc1.64001f, mp4a.40.2\"')", json!(true)),
        ("navigator.mediaDevices.enumerateDevices().then((d) => d.length)", json!(0)),
    ] {
        assert_eq!(bench.clicked(expression).await, expected, "{expression}");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn window_functions_are_there_first_and_call_back_when_acknowledged() {
    let mut bench = Bench::start().await;
    for _ in 0..2 {
        // The second time: again after a navigation.
        bench.open("/functions").await.unwrap();
        assert_eq!(bench.clicked("early").await, json!(["functionfalse"; 5].join(",")));
        assert_eq!(bench.clicked("[typeof returned, frames[0].inner]").await, json!(["undefined", "undefined"]));
        let mut calls = Vec::new();
        for action in [Action::Start, Action::Pause, Action::Resume, Action::Refresh] {
            calls.push(bench.call().await);
            assert_eq!(calls.last().unwrap().action, action);
        }
        assert_eq!(bench.clicked("log").await, json!([]), "nothing is called back before the recorder has acted");
        for call in &calls {
            bench.browser.acknowledge(call).await;
            bench.browser.acknowledge(call).await; // twice is once
        }
        assert_eq!(bench.clicked("log").await, json!(["started", "refreshed"]));
        bench.clicked("stopRecord(() => log.push('stopped'))").await;
        let stop = bench.call().await;
        bench.browser.acknowledge(&stop).await;
        assert_eq!((stop.action, bench.clicked("log[2]").await), (Action::Stop, json!("stopped")));
    }
    // A call from a document that is gone is nobody's.
    bench.clicked("startRecord(() => 0)").await;
    let stale = bench.call().await;
    bench.open("/own-names").await.unwrap();
    bench.browser.acknowledge(&stale).await;
    assert_eq!(bench.clicked("mine").await, json!("own,1,2,3"), "a page's own names win");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_calls_floods_nobody() {
    let mut bench = Bench::start().await;
    bench.open("/flood").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut calls = 0;
    while bench.clicked("'still there'").await == json!("still there") {
        match tokio::time::timeout(Duration::from_secs(1), bench.events.recv()).await {
            Ok(Some(PageEvent::Called(_))) => calls += 1,
            Ok(Some(_)) => {}
            // On a busy machine the first one takes its time.
            Err(_) if calls == 0 && Instant::now() < deadline => {}
            _ => break,
        }
    }
    assert!((1..200).contains(&calls), "{calls} calls");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_pages_stay_out_of_the_picture() {
    let bench = Bench::shown().await;
    bench.open("/ok").await.unwrap();
    let pages = async || {
        let targets = bench.browser.cdp.call(None, GetTargetsParams::default(), COMMAND_BOUND).await.unwrap();
        targets.target_infos.into_iter().filter(|t| t.r#type == "page").count()
    };
    let until = async |expected: usize| {
        let deadline = Instant::now() + PATIENCE;
        while pages().await != expected {
            assert!(Instant::now() < deadline, "{} pages, not {expected}", pages().await);
            sleep(Duration::from_millis(20)).await;
        }
    };
    // Nobody clicked: blocked.
    let mut unclicked = EvaluateParams::new("String(window.open('/ok'))");
    unclicked.return_by_value = Some(true);
    assert_eq!(bench.browser.tell(unclicked).await.unwrap().result.value, Some(json!("null")));
    // A tab would cover the page.
    bench.clicked("void (window.tab = window.open('/ok'))").await;
    bench.eventually("tab.closed", json!(true)).await;
    until(1).await;
    bench.clicked("window.was = frames").await;
    bench.eventually("frames > was + 5", json!(true)).await;
    assert_eq!(bench.clicked("document.visibilityState").await, json!("visible"));
    // A window of its own does not; its dialogs hold up nobody.
    bench.clicked("void (window.own = window.open('/dialogs', 'own', 'width=300,height=200'))").await;
    bench.eventually("String(own.answers)", json!(",true,default")).await;
    until(2).await;
    // Many of them are a storm.
    bench.clicked("window.storm = []").await;
    for i in 0..6 {
        bench.clicked(&format!("void storm.push(window.open('/ok', 'w{i}', 'width=300,height=200'))")).await;
    }
    bench.eventually("storm.filter((w) => !w.closed).length", json!(3)).await;
    until(5).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_open_whatever_happened_before() {
    let bench = Bench::shown().await;
    let opens = async |when: &str| {
        let list = "document.body.innerHTML = '<select id=s><option>one<option>two</select>';
            requestAnimationFrame = () => 0; s.showPicker()";
        // Focus that comes late, on a busy machine, closes a list that was just opened; who wants it open clicks again.
        let deadline = Instant::now() + PATIENCE;
        loop {
            bench.clicked(list).await;
            for _ in 0..25 {
                if bench.clicked("s.matches(':open')").await == json!(true) {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
            assert!(Instant::now() < deadline, "the list never opens {when}");
        }
    };
    bench.open("/ok").await.unwrap();
    opens("after opening").await;
    bench.browser.reload(LoadBounds::default()).await.unwrap();
    opens("after a reload").await;
    bench.open("/ok").await.unwrap();
    bench.clicked("void (window.own = window.open('/ok', 'own', 'width=300,height=200'))").await;
    bench.eventually("own.document.title", json!("ok")).await;
    opens("beside another window").await;
    bench.end().await;
}
