//! What stands while a job runs: the upstream, and all targets at once, so that none has a fresher machine than another.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::sys::{Confinement, StopSignals, open_file_limit};
use crate::targets::{Certificate, Folder, Process, Running, Site, StartError, TargetSpec};

/// How long the upstream may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What `mcp-bench upstream` prints before its URL.
const LISTENING: &str = "listening on http://";

/// Why a job cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The description of it is wrong.
    #[error("{0}")]
    Spec(String),
    /// A target does not run.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The upstream does not run.
    #[error("the upstream does not listen: {0}")]
    Upstream(String),
    /// The load command could not do its work.
    #[error("{command} failed:\n{output}")]
    Load {
        /// The command.
        command: String,
        /// The end of what it printed.
        output: String,
    },
    /// A system call of ours failed.
    #[error("mcp-bench: {0}")]
    Io(#[from] io::Error),
}

/// One target on the stage.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) spec: TargetSpec,
    /// The target, or why it does not run.
    pub(super) running: Result<Running, String>,
}

/// Everything that runs. Dropped, all of it ends, targets first.
#[derive(Debug)]
pub struct Stage {
    pub(super) places: Vec<Place>,
    _upstream: Process,
    upstream_options: Vec<String>,
    pub(super) folder: Folder,
}

impl Stage {
    /// Starts the upstream, then the targets one after the other. With `skip_missing`, a target that is not installed
    /// leaves its place empty.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn open(upstream: &[String], targets: &[TargetSpec], skip_missing: bool) -> Result<Self, JobError> {
        let open_files = open_file_limit()?;
        let folder = Folder::create()?;
        let certificate = Certificate::generate(&folder)?;
        let (process, address) = start_upstream(upstream, &folder)?;
        let site = Site {
            folder: &folder,
            certificate: &certificate,
            upstream: address,
            upstream_pid: process.id(),
            open_files,
        };
        let mut places = Vec::new();
        for spec in targets {
            let running = match spec.start(&site) {
                Ok(running) => Ok(running),
                Err(e @ StartError::Missing { .. }) if skip_missing => Err(e.to_string()),
                Err(e) => return Err(e.into()),
            };
            if let Ok(Running { no_group: Some(why), .. }) = &running {
                eprintln!("{}: without its memory limit: {why}", spec.name);
            }
            places.push(Place { spec: spec.clone(), running });
        }
        Ok(Self { places, _upstream: process, upstream_options: upstream.to_vec(), folder })
    }

    /// Whether this stage serves such a job, too.
    pub fn fits(&self, upstream: &[String], targets: &[TargetSpec]) -> bool {
        self.upstream_options == upstream && self.places.iter().map(|place| &place.spec).eq(targets)
    }

    /// Runs one of our own commands to its end, looking after the target's memory group meanwhile. Returns its exit code
    /// (`None`: interrupted) and the end of what it printed.
    pub(super) fn run_load(
        &mut self,
        place: usize,
        arguments: &[String],
        visible: bool,
        signals: &StopSignals,
    ) -> Result<(Option<i32>, String), JobError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        let mut load = if visible {
            Process::start_visible(command)?
        } else {
            Process::start(command, &self.folder.file("load.log"), Confinement::default())?
        };
        loop {
            if let Some(status) = load.ended()? {
                return Ok((status.code(), load.tail()));
            }
            if let Ok(running) = &mut self.places[place].running {
                running.sample_group();
            }
            if signals.wait(LOOK_EVERY.max(Duration::from_millis(50))) {
                return Ok((None, load.tail()));
            }
        }
    }
}

fn start_upstream(options: &[String], folder: &Folder) -> Result<(Process, SocketAddr), JobError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["upstream", "--listen", "127.0.0.1:0"]).args(options);
    let mut process = Process::start(command, &folder.file("upstream.log"), Confinement::default())?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let output = process.output();
        let address =
            output.strip_prefix(LISTENING).and_then(|rest| rest.split_once("/mcp\n")?.0.parse().ok());
        if let Some(address) = address {
            return Ok((process, address));
        }
        if process.ended()?.is_some() || Instant::now() >= deadline {
            return Err(JobError::Upstream(process.tail()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
