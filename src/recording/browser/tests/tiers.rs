//! Platforms that refuse some ways of starting Chromium: the real one behind a door that lets only some command lines in.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A program that starts Chromium if its command line has `flag`, and writes down that it was asked.
fn door(dir: &Path, flag: &str) -> std::path::PathBuf {
    let (path, log) = (dir.join("door"), dir.join("asked"));
    let script = format!(
        "#!/bin/sh\necho asked >>'{}'\ncase \" $* \" in *' {flag} '*) exec {CHROMIUM} \"$@\";; esac\n\
         echo 'Zygote could not fork' >&2\nexit 5\n",
        log.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn asked(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("asked")).unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_refuses_is_tried_once_and_what_works_is_remembered() {
    for (flag, tries) in [("--in-process-gpu", 2), ("--single-process", 3)] {
        let dir = tempfile::tempdir().unwrap();
        let tiers = Tiers::any();
        for time in 0..2 {
            let bench = Bench::with(|config| {
                config.chromium = door(dir.path(), flag);
                config.platform = Platform::Wayland { display: "wayland-test".into() };
                config.sandbox = Sandbox::Off;
                config.tiers = tiers.clone();
            })
            .await;
            assert_eq!(asked(dir.path()), tries + time, "{flag}");
            bench.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_every_way_is_refused_the_last_refusal_is_told() {
    let run_dir = tempfile::tempdir().unwrap();
    let mut config = config(run_dir.path());
    config.chromium = door(run_dir.path(), "--never");
    (config.sandbox, config.tiers) = (Sandbox::Off, Tiers::any());
    let egress = Egress::start(Vec::new()).await.unwrap();
    let Err(error) = Browser::launch(&config, &egress, &Guard::disabled()).await else { panic!("it started") };
    assert!(error.to_string().contains("Zygote could not fork"), "{error}");
    assert_eq!(asked(run_dir.path()), 3);
}
