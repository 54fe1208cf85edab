//! A child process: its output goes to a file, and it never outlives the run.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::sys::{Confinement, ask_to_end, confine};

/// How long a child may take to end when asked to; then it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Time between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Bytes from the end of its output that a message quotes.
const TAIL_BYTES: usize = 2000;

/// A running child; dropped, it is ended.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with its standard error in the file `log`, and its standard output there too unless it is a pipe
    /// that the caller set up.
    ///
    /// The child dies with the thread that calls this.
    ///
    /// # Errors
    /// When the file cannot be made or the program cannot be run.
    pub fn start(mut command: Command, log: &Path, confinement: Confinement) -> io::Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        confine(&mut command, confinement);
        Ok(Self { child: command.spawn()?, log: log.to_owned() })
    }

    /// As [`Self::start`], with the child's output where ours goes.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start_visible(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        confine(&mut command, Confinement::default());
        Ok(Self { child: command.spawn()?, log: PathBuf::new() })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// As `waitpid(2)`.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// All that it has written so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of what it has written, for messages.
    pub fn tail(&self) -> String {
        let output = self.output();
        let mut from = output.len().saturating_sub(TAIL_BYTES);
        while !output.is_char_boundary(from) {
            from += 1;
        }
        output[from..].trim().to_owned()
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// As `kill(2)` and `waitpid(2)`.
    pub fn ask_to_end(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() { ask_to_end(self.id()) } else { Ok(()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + END_LIMIT;
        // A child that cannot be asked, or does not listen, is killed below; one that has ended takes no harm.
        if self.ask_to_end().is_ok() {
            while matches!(self.ended(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::folder::Folder;

    #[test]
    fn output_is_kept_and_nothing_survives() {
        let folder = Folder::create().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; exec sleep 60"]);
        let process = Process::start(command, &folder.file("log"), Confinement::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.tail() != "ready" {
            assert!(Instant::now() < deadline, "{}", process.tail());
            std::thread::yield_now();
        }
        let proc = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }
}
