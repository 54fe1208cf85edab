//! Owns the processes that tests start: their output is kept for the message of a failure, and none outlives its test. A
//! process dies when its `Process` is dropped, and by the kernel's hand when the thread that started it ends, so that not
//! even a killed test leaves one behind.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::eventually;

/// Lines of output that are kept of a process; later ones are read and forgotten.
const MAX_LINES: usize = 20_000;

/// A running process whose output is read.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Output,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// The lines of standard output.
    pub stdout: Vec<String>,
    /// The lines of standard error.
    pub stderr: Vec<String>,
}

impl Process {
    /// Starts `command`; `name` is what messages call it.
    ///
    /// The process dies with the thread that calls this: tests must not share a process between them.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is async-signal-safe and touches no memory of this process.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let output = Output::default();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(keep_lines(stdout, output.stdout.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(keep_lines(stderr, output.stderr.clone()));
        }
        Self { name: name.to_owned(), child, output, readers }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line, on either stream, for which `wanted` gives something.
    ///
    /// # Panics
    /// When the process ends first or no such line comes within `limit`.
    pub fn wait_line<T>(&mut self, limit: Duration, wanted: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("the awaited line of {}", self.name);
        eventually(&what, limit, || {
            let ended = self.child.try_wait().ok().flatten();
            let found = self.lines().iter().find_map(|line| wanted(line));
            assert!(
                ended.is_none() || found.is_some(),
                "{} ended with {ended:?}:\n{}",
                self.name,
                self.log()
            );
            found
        })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its resident memory, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("{} has ended:\n{}", self.name, self.log())) * 1024
    }

    /// All that it printed so far, standard output first, for messages.
    #[must_use]
    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// Sends a signal, such as [`libc::SIGTERM`].
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&mut self, signal: libc::c_int) {
        assert!(self.is_running(), "{} has ended:\n{}", self.name, self.log());
        let id = libc::pid_t::try_from(self.child.id()).expect("process ids are small");
        // SAFETY: the child was not waited for, so the id is still its own.
        let sent = unsafe { libc::kill(id, signal) };
        assert_eq!(sent, 0, "cannot signal {}: {}", self.name, std::io::Error::last_os_error());
    }

    /// Stops it (SIGSTOP) and waits until all of its threads are stopped.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn stop(&mut self) {
        self.signal(libc::SIGSTOP);
        let id = libc::pid_t::try_from(self.child.id()).expect("process ids are small");
        let mut status = 0;
        // SAFETY: the child was not waited for, so the id is its own; `status` outlives the call.
        let told = unsafe { libc::waitpid(id, &raw mut status, libc::WUNTRACED) };
        assert!(told == id && libc::WIFSTOPPED(status), "{} did not stop", self.name);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let what = format!("the end of {}", self.name);
        let deadline = std::time::Instant::now() + limit;
        let status = loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                break status;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "not within {limit:?}: {what}; it printed:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            // A reader that panicked has lost lines, nothing more.
            let _ = reader.join();
        }
        Finished {
            status,
            stdout: lock(&self.output.stdout).clone(),
            stderr: lock(&self.output.stderr).clone(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = lock(&self.output.stdout).clone();
        lines.extend_from_slice(&lock(&self.output.stderr));
        lines
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it remains after the wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Default)]
struct Output {
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
}

fn keep_lines(
    stream: impl Read + Send + 'static,
    lines: Arc<Mutex<Vec<String>>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut lines = lock(&lines);
            if lines.len() < MAX_LINES {
                lines.push(text);
            }
        }
    })
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start("shell", Command::new("sh").arg("-c").arg(script))
    }

    #[test]
    fn output_and_status_are_kept() {
        let finished = shell("echo out; echo err >&2; exit 3").finish(Duration::from_secs(10));
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stdout, ["out"]);
        assert_eq!(finished.stderr, ["err"]);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let mut process = shell("echo ready; exec sleep 60");
        let id = process.id();
        process.wait_line(Duration::from_secs(10), |line| (line == "ready").then_some(()));
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_process_dies_with_the_thread_that_started_it() {
        let process = std::thread::spawn(|| shell("exec sleep 60")).join().expect("the thread ends");
        let finished = process.finish(Duration::from_secs(10));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&finished.status), Some(libc::SIGKILL));
    }

    #[test]
    fn a_signal_arrives() {
        let mut process = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        process.wait_line(Duration::from_secs(10), |line| (line == "ready").then_some(()));
        process.signal(libc::SIGTERM);
        assert_eq!(process.finish(Duration::from_secs(10)).status.code(), Some(7));
    }
}
