//! The programs that a recording starts, wherever they come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::browser::{Sandbox, Tiers};
use super::bundle::{Bundle, BundleError};

/// A program of the system, or of a bundle that may still be on its way.
#[derive(Debug, Clone)]
pub struct Program {
    /// In the bundle, or by itself.
    path: PathBuf,
    bundle: Option<Bundle>,
}

impl Program {
    /// One that is installed.
    pub fn installed(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), bundle: None }
    }

    /// One of a bundle.
    pub fn bundled(bundle: Bundle, name: &str) -> Self {
        Self { path: name.into(), bundle: Some(bundle) }
    }

    /// Waits until it can be started.
    pub async fn ready(&self) -> Result<PathBuf, Arc<BundleError>> {
        match &self.bundle {
            Some(bundle) => Ok(bundle.ready().await?.join(&self.path)),
            None => Ok(self.path.clone()),
        }
    }

    /// What it needs besides, if it brings its own libraries and fonts.
    fn environment(&self, program: &Path) -> Vec<(OsString, OsString)> {
        let beside = |name: &str| program.with_file_name(name).into_os_string();
        match self.bundle {
            Some(_) => {
                vec![("LD_LIBRARY_PATH".into(), beside("lib")), ("FONTCONFIG_FILE".into(), beside("fonts.conf"))]
            }
            None => Vec::new(),
        }
    }
}

/// Chromium, and how it is to be started here.
#[derive(Debug, Clone)]
pub struct Chromium {
    /// The program.
    pub program: Program,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// How its processes come about.
    pub tiers: Tiers,
}

/// Chromium when it is there.
#[derive(Debug, Clone)]
pub struct ReadyChromium {
    /// The program.
    pub path: PathBuf,
    /// For its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// How its processes come about.
    pub tiers: Tiers,
}

impl Chromium {
    /// Waits until it can be started.
    pub async fn ready(&self) -> Result<ReadyChromium, Arc<BundleError>> {
        let path = self.program.ready().await?;
        let environment = self.program.environment(&path);
        Ok(ReadyChromium { path, environment, sandbox: self.sandbox, tiers: self.tiers.clone() })
    }
}
