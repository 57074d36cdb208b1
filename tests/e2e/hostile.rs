//! Pages that attack whoever records them. What they must not reach is a real server of the tests on a loopback address that
//! nobody allowed: it stands for Lambda's runtime interface, the metadata address, and whatever else is near a recorder.

use crate::checks;
use crate::jail::limits::Limits;
use crate::run::Stage;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The pages' server may be reached; its neighbour may not.
const ALLOWED: [&str; 2] = ["--allow-address", "127.0.0.1/32"];

/// The metadata address as the guard says it, and how many attacks lead there that are connections of their own.
const METADATA: [(&str, usize); 2] = [("169.254.169.254", 4), ("fd00:ec2::254", 3)];

/// Somebody near, who counts who comes.
struct Neighbour {
    address: SocketAddr,
    visits: Arc<AtomicUsize>,
}

impl Neighbour {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let (address, visits) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&visits);
        // Ends with the tests' process.
        thread::spawn(move || {
            for _ in listener.incoming() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// What comes of the last attack is seen within this, and the page once more.
const ATTACKED: Duration = Duration::from_secs(6);

/// Names of the attacks in the page.
fn attacks() -> Vec<String> {
    let page = include_str!("../pages/hostile.html");
    let table = page.split("const attacks = {").nth(1).and_then(|t| t.split("\n};").next()).unwrap();
    let lines = table.lines().filter_map(|l| l.strip_prefix("  ")).filter(|l| !l.starts_with([' ', '}']));
    lines.filter_map(|l| l.split_once(": ()")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn a_hostile_page_reaches_nothing_and_is_recorded() {
    let stage = Stage::shared();
    let neighbour = Neighbour::new();
    let url = format!("{}#{}", stage.server.url("hostile.html"), neighbour.address);
    let attacks = attacks();
    assert!(attacks.len() > 30, "{attacks:?}");
    let notes = || -> Vec<String> { stage.server.notes().into_iter().map(|(_, text)| text).collect() };
    let mut recording = stage.command(&url, &stage.file(), &ALLOWED, &[("PANOREC_LOG", "panorec=debug")]);
    recording.until(
        |_| {
            let notes = notes();
            attacks.iter().all(|name| notes.contains(&format!("tried-{name}")))
        },
        "everything is tried",
    );
    thread::sleep(ATTACKED);
    recording.interrupt();
    // Its end also sees that no process and no downloaded file is left.
    let outcome = recording.end();
    let caught: Vec<_> = notes().into_iter().filter(|text| text.starts_with("caught")).collect();
    assert!(caught.is_empty(), "{caught:?}");
    assert_eq!(neighbour.visits(), 0, "somebody got to {}", neighbour.address);
    // Nobody answers there, here: that the guard refused it is to be seen in what it says.
    for (host, times) in METADATA {
        let refusals = outcome.err.lines().filter(|l| l.contains("refused to the page") && l.contains(host)).count();
        assert!(refusals >= times, "{host} was refused {refusals} times, not {times}:\n{}", outcome.err);
    }
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::memory(&outcome);
    // Dialogs lie over the page and stop its scripts again and again, and nothing else does: it is seen after the last attack.
    let after = e.pictures.iter().filter(|p| p.code.is_some_and(|code| code.stage == 1)).count();
    assert!(after > 0, "the page is not seen any more: {:?}", e.report());
    // And the neighbour was really there.
    drop(std::net::TcpStream::connect(neighbour.address).unwrap());
}

#[test]
fn a_page_that_leads_elsewhere_is_not_followed() {
    let stage = Stage::shared();
    let neighbour = Neighbour::new();
    let url = stage.server.url(&format!("redirect?http://{}/", neighbour.address));
    let outcome = stage.record_url(&url, &stage.file(), &ALLOWED).end();
    outcome.failed(&["127.0.0.2", "--allow-address"]);
    assert_eq!((neighbour.visits(), outcome.file.exists()), (0, false));
}

/// What the page does when it is loaded again, and what comes of it.
const LED_ELSEWHERE: Duration = Duration::from_secs(2);

#[test]
fn a_page_that_uses_up_memory_and_then_leads_to_the_runtime_interface_is_recorded_to_the_end() {
    let stage = Stage::new();
    let neighbour = Neighbour::new();
    let limits = Limits::memory();
    if limits.is_none() {
        println!("control groups cannot be made here: memory is what V8 allows");
    }
    let url = format!("{}#{}", stage.server.url("bomb.html"), neighbour.address);
    let mut recording = stage.limited(limits.as_ref(), &url, &ALLOWED);
    recording.until(|r| r.asked("count/bomb") >= 2, "the page is loaded again");
    thread::sleep(LED_ELSEWHERE);
    recording.interrupt();
    let outcome = recording.end();
    let e = outcome.good();
    checks::container(&outcome, &e);
    checks::memory(&outcome);
    let seen: Vec<_> = e.coded().iter().map(|(_, code)| code.stage).collect();
    assert!(seen.first() == Some(&1) && seen.last() == Some(&2), "both times the page was there: {seen:?}");
    let gaps = outcome.list("/Quality/Gaps");
    assert!(gaps.len() == 1 && gaps[0]["Reason"] == "PageCrash", "{gaps:?}");
    assert_eq!(neighbour.visits(), 0, "somebody got to {}", neighbour.address);
}
