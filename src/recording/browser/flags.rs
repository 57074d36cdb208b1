//! Chromium's command line, environment and first preferences, each with its reason.
//!
//! Everything that could put something of the browser's own over the page (bubbles, bars, questions) is turned off
//! here or answered in [`steward`](super::steward); so is everything that talks to servers of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{BrowserConfig, Platform, Sandbox, Tier};

/// The same for every recording.
const FLAGS: &[&str] = &[
    // DevTools on a free port of loopback only, found through DevToolsActivePort. Pages cannot get there: Chromium
    // refuses WebSockets that carry an Origin, and the egress guard refuses the port.
    "--remote-debugging-port=0",
    // --- nothing but the page in the picture
    "--kiosk",                     // no tabs, no address bar, no information bars
    "--no-first-run",              // no welcome page
    "--no-default-browser-check",  // no question
    "--hide-crash-restore-bubble", // no question after a relaunch
    "--noerrdialogs",              // no error windows
    "--deny-permission-prompts",   // no camera here, and nobody to ask: answered "denied" at once
    "--disable-prompt-on-repost",  // reloading a page that came by POST asks nothing
    "--disable-hang-monitor",      // a busy page is recorded as busy; no "page unresponsive"
    "--disable-search-engine-choice-screen",
    "--force-device-scale-factor=1", // a page pixel is a video pixel
    "--force-color-profile=srgb",    // the encoder signals BT.709 primaries
    "--disable-lcd-text",            // coloured fringes smear in 4:2:0
    // --- the page runs as before a person
    "--autoplay-policy=no-user-gesture-required", // nobody will click
    "--disable-background-timer-throttling",      // the window is never in the background
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    // --- drawing without a GPU
    "--disable-gpu",           // software compositing into shared memory, which is what the display takes
    "--use-angle=swiftshader", // WebGL in software
    "--enable-unsafe-swiftshader", // and permitted there
    "--disable-dev-shm-usage", // /dev/shm may be missing or small
    // --- no traffic and no disk of its own
    "--disable-background-networking",
    "--disable-component-update",
    // What some part of it wants at once is asked for all the same (156 does, 148 did not). Port 1 is one that Chromium never goes to.
    "--component-updater=url-source=http://127.0.0.1:1",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--disable-field-trial-config", // the same features everywhere
    "--disable-breakpad",           // no crash uploads
    "--metrics-recording-only",
    // Accounts and push messages cannot be turned off any more.
    "--gaia-url=http://127.0.0.1:1",
    "--gcm-checkin-url=http://127.0.0.1:1",
    "--password-store=basic",     // no key ring, no D-Bus
    "--disk-cache-size=67108864", // 64 MiB: a streamed video would fill the disk at the page's leisure
];

/// Features that get in the way, turned off.
const DISABLED_FEATURES: &[&str] = &[
    "Translate",                        // bubble
    "MediaRouter",                      // looks for Cast devices on the network
    "DialMediaRouteProvider",           // the same
    "GlobalMediaControls",              // toolbar button
    "LensOverlay",                      // toolbar button
    "OptimizationHints",                // server of its own
    "NetworkTimeServiceQuerying",       // the same
    "AimEnabled",                       // its maker's search: whether the address bar may offer its AI
    "AimServerRequestOnStartupEnabled", // the same
    "PreconnectToSearch",               // its maker's search again, before anybody searches
    "HttpsUpgrades",                    // an http page would first be tried over https and wait for that to fail
    "Prerender2",                       // a second page would run beside the recorded one and take over its target
    "PreloadTopChromeWebUI",            // a hidden page of the browser's own, with a renderer of its own
    "BackForwardCache",                 // keeps left pages in memory; nobody goes back
];

/// Names of what is made in the run directory.
pub(super) const PROFILE: &str = "profile";
const HOME: &str = "home";
const TMP: &str = "tmp";

/// The command line.
pub(super) fn command_line(config: &BrowserConfig, tier: Tier, proxy: SocketAddr, sandboxed: bool) -> Vec<OsString> {
    let mut line: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
    let mut user_data = OsString::from("--user-data-dir=");
    user_data.push(config.run_dir.join(PROFILE));
    line.push(user_data);
    line.push(format!("--window-size={},{}", config.size.width, config.size.height).into());
    line.push(format!("--disable-features={}", DISABLED_FEATURES.join(",")).into());
    // Loopback too goes through the guard, which Chromium would otherwise leave out.
    line.push(format!("--proxy-server=socks5://{proxy}").into());
    line.push("--proxy-bypass-list=<-loopback>".into());
    match config.platform {
        Platform::Wayland { .. } => line.push("--ozone-platform=wayland".into()),
        Platform::Headless => line.push("--headless=new".into()),
    }
    line.extend(tier.flags().iter().map(OsString::from));
    if !sandboxed {
        line.push("--no-sandbox".into());
    }
    if let Some(agent) = &config.user_agent {
        line.push(format!("--user-agent={agent}").into());
    }
    line.extend(config.extra_flags.iter().cloned());
    line.push("about:blank".into());
    line
}

/// The whole environment: private places, our sockets, and what the caller lists.
pub(super) fn environment(config: &BrowserConfig) -> Vec<(OsString, OsString)> {
    let at = |path: PathBuf| path.into_os_string();
    let mut pulse = OsString::from("unix:");
    pulse.push(&config.pulse_socket);
    let mut environment = vec![
        ("HOME".into(), at(config.run_dir.join(HOME))),
        ("TMPDIR".into(), at(config.run_dir.join(TMP))), // whatever is left behind goes with the run directory
        ("XDG_RUNTIME_DIR".into(), at(config.run_dir.clone())),
        ("PULSE_SERVER".into(), pulse),
        ("DBUS_SESSION_BUS_ADDRESS".into(), "disabled:".into()), // no desktop services
    ];
    if let Platform::Wayland { display } = &config.platform {
        environment.push(("WAYLAND_DISPLAY".into(), display.clone()));
    }
    environment.extend(config.environment.iter().cloned());
    environment
}

/// Directories and files to be made below the run directory before the start.
pub(super) fn files() -> ([PathBuf; 3], [(PathBuf, Value); 2]) {
    let preferences = json!({
        "printing": { "enabled": false }, // window.print() would put a dialog over the page and stop its scripts
        "credentials_enable_service": false,
        "profile": { "password_manager_enabled": false },
        "translate": { "enabled": false },
        "safebrowsing": { "enabled": false },
        "alternate_error_pages": { "enabled": false },
        "search": { "suggest_enabled": false },
    });
    // Only a scheme that needs no typing: a frame that answers 401 shows its text instead of a sign-in window.
    let local_state = json!({ "auth": { "schemes": "negotiate" } });
    let profile = Path::new(PROFILE);
    (
        [profile.join("Default"), HOME.into(), TMP.into()],
        [(profile.join("Default/Preferences"), preferences), (profile.join("Local State"), local_state)],
    )
}

/// Whether to start Chromium in its sandbox.
///
/// Root cannot: Chromium refuses. Anybody else needs either the set-uid helper beside the program or unprivileged
/// user namespaces. The files that say so are not the whole truth (a container's filter may refuse all the same), so
/// a sandboxed start that fails is repeated without, with a warning: a recording in one's own container is better
/// than none, and there the container is the sandbox.
pub(super) fn sandboxed(config: &BrowserConfig) -> bool {
    match config.sandbox {
        Sandbox::On => true,
        Sandbox::Off => false,
        Sandbox::Auto => {
            let helper = config.chromium.with_file_name("chrome-sandbox");
            let set_uid = std::fs::metadata(helper).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o4000 != 0);
            let root = rustix::process::geteuid().is_root();
            !root && (set_uid || namespaces_permitted(|file| std::fs::read_to_string(file).ok()))
        }
    }
}

fn namespaces_permitted(read: impl Fn(&str) -> Option<String>) -> bool {
    let says = |file, value: &str| read(file).is_some_and(|text| text.trim() == value);
    !says("/proc/sys/user/max_user_namespaces", "0")
        && !says("/proc/sys/kernel/unprivileged_userns_clone", "0")
        && !says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::spec::Size;

    fn config(platform: Platform) -> BrowserConfig {
        BrowserConfig {
            chromium: "/opt/chromium/chromium".into(),
            size: Size::new(1280, 720).unwrap(),
            run_dir: "/run/one".into(),
            platform,
            pulse_socket: "/run/one/pulse".into(),
            user_agent: Some("agent 1".into()),
            sandbox: Sandbox::Auto,
            tiers: super::super::Tiers::any(),
            environment: vec![("TZ".into(), "UTC".into())],
            extra_flags: vec!["--extra".into()],
        }
    }

    #[test]
    fn the_command_line_carries_the_configuration() {
        let config = config(Platform::Wayland { display: "wayland-7".into() });
        let line = command_line(&config, Tier::SingleProcess, "127.0.0.1:1080".parse().unwrap(), true);
        for flag in [
            "--user-data-dir=/run/one/profile",
            "--window-size=1280,720",
            "--proxy-server=socks5://127.0.0.1:1080",
            "--ozone-platform=wayland",
            "--user-agent=agent 1",
            "--extra",
        ] {
            assert!(line.iter().any(|f| f == flag), "{flag}");
        }
        assert!(!line.iter().any(|f| f == "--no-sandbox"));
        assert!(line.last().unwrap() == "about:blank");
        assert!(
            command_line(&config, Tier::SingleProcess, "127.0.0.1:1080".parse().unwrap(), false)
                .contains(&"--no-sandbox".into())
        );
    }

    #[test]
    fn no_flag_is_given_twice_and_none_of_the_harmful_ones_at_all() {
        let config = config(Platform::Headless);
        let line = command_line(&config, Tier::SingleProcess, "127.0.0.1:1080".parse().unwrap(), true);
        let mut names: Vec<&str> = line.iter().map(|f| f.to_str().unwrap().split('=').next().unwrap()).collect();
        for harmful in [
            "--disable-frame-rate-limit",     // hundreds of frames per second, none of them recorded
            "--disable-crashpad-for-testing", // breaks the network service
            "--remote-allow-origins",         // opens DevTools to pages
            "--enable-automation",            // an information bar
            "--disable-popup-blocking",       // windows over the page
            "--disable-web-security",         // another page than a person's
        ] {
            assert!(!names.contains(&harmful), "{harmful}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_environment_is_private_and_complete() {
        let environment = environment(&config(Platform::Wayland { display: "wayland-7".into() }));
        let value = |key: &str| environment.iter().find(|(k, _)| k == key).map(|(_, v)| v.to_str().unwrap());
        assert_eq!(value("XDG_RUNTIME_DIR"), Some("/run/one"));
        assert_eq!(value("WAYLAND_DISPLAY"), Some("wayland-7"));
        assert_eq!(value("PULSE_SERVER"), Some("unix:/run/one/pulse"));
        assert_eq!(value("HOME"), Some("/run/one/home"));
        assert_eq!(value("TZ"), Some("UTC"));
        assert_eq!(environment.len(), 7);
    }

    #[test]
    fn the_sandbox_needs_user_namespaces() {
        let table: [(&[(&str, &str)], bool); 5] = [
            (&[], true), // a kernel that has none of the switches
            (&[("/proc/sys/user/max_user_namespaces", "96365\n")], true),
            (&[("/proc/sys/user/max_user_namespaces", "0\n")], false),
            (&[("/proc/sys/kernel/unprivileged_userns_clone", "0\n")], false),
            (&[("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")], false),
        ];
        for (files, permitted) in table {
            let read = |file: &str| files.iter().find(|(f, _)| *f == file).map(|(_, text)| (*text).to_owned());
            assert_eq!(namespaces_permitted(read), permitted, "{files:?}");
        }
    }
}
