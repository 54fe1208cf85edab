//! Why io_uring cannot be had: owns the words for what the kernel answered, and for what would help. It never decides what
//! is done without it.

use std::io;

use rustix::process::{Resource, getrlimit};

/// Who may use io_uring: 0 everybody, 1 the members of a group, 2 nobody (kernel 6.6 and later).
const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";
/// What glommio asks of the limit of locked memory.
pub(super) const LOCKED_BYTES: u64 = 512 << 10;

const SECCOMP: &str = "run under a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register \
                       (deploy/seccomp has one)";
const KERNEL: &str = "use Linux 6.1 or later";

/// The cause and the remedy of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the kernel or the executor answered, and what it means.
    pub cause: String,
    /// What to change so that io_uring can be had.
    pub remedy: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; to have it, {}", self.cause, self.remedy)
    }
}

impl Refusal {
    /// The kernel refused a ring, or something of it.
    pub(super) fn by_kernel(error: &io::Error) -> Self {
        let sysctl = std::fs::read_to_string(SYSCTL).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let (meaning, remedy) = explain(error.raw_os_error(), sysctl.trim(), &release);
        Refusal { cause: format!("{error}: {meaning}"), remedy }
    }

    /// The kernel gave rings, but the executors that live on them could not be made.
    pub(super) fn by_executor(answer: &str) -> Self {
        let locked = getrlimit(Resource::Memlock).current;
        let remedy = match locked {
            Some(bytes) if bytes < LOCKED_BYTES => format!(
                "raise the hard limit of locked memory from {} KiB to {} KiB or more (ulimit -l)",
                bytes >> 10,
                LOCKED_BYTES >> 10
            ),
            _ => "give the process more memory and more open files".to_owned(),
        };
        Refusal { cause: format!("an executor could not be made: {answer}"), remedy }
    }
}

/// What an errno means where rings are made, and what would help; `sysctl` is what [`SYSCTL`] says, empty where there is none.
fn explain(errno: Option<i32>, sysctl: &str, release: &str) -> (String, String) {
    let (meaning, remedy) = match (errno, sysctl) {
        (Some(libc::EPERM), "1") => (
            "sysctl kernel.io_uring_disabled is 1",
            "set it to 0, or run as a member of the group that sysctl kernel.io_uring_group names",
        ),
        (Some(libc::EPERM), "2") => ("sysctl kernel.io_uring_disabled is 2", "set it to 0"),
        (Some(libc::EPERM), _) => ("a seccomp profile forbids it", SECCOMP),
        (Some(libc::EACCES), _) => {
            ("a security module forbids it", "allow it in the policy of SELinux or AppArmor")
        }
        (Some(libc::ENOSYS), _) => {
            let meaning =
                format!("the kernel ({release}) was built without it, or a seccomp profile hides it");
            return (meaning, format!("{KERNEL} with CONFIG_IO_URING, and {SECCOMP}"));
        }
        (Some(libc::EINVAL), _) | (None, _) => {
            return (
                format!("the kernel ({release}) lacks something that the gateway uses"),
                KERNEL.to_owned(),
            );
        }
        (Some(libc::ENOMEM), _) => ("there is no memory for rings", "raise the limit of memory"),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            ("there is no descriptor left for rings", "raise the limit of open files (ulimit -n)")
        }
        (Some(_), _) => ("the kernel cannot give a ring", KERNEL),
    };
    (meaning.to_owned(), remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_kernel_has_a_cause_and_a_remedy() {
        let told = |errno, sysctl| {
            let (meaning, remedy) = explain(errno, sysctl, "5.15.0-test");
            format!("{meaning}; {remedy}")
        };
        let expected: [(Option<i32>, &str, &[&str]); 12] = [
            (Some(libc::EPERM), "0", &["seccomp profile forbids", "deploy/seccomp"]),
            (Some(libc::EPERM), "", &["seccomp profile forbids", "deploy/seccomp"]),
            (Some(libc::EPERM), "1", &["io_uring_disabled is 1", "io_uring_group"]),
            (Some(libc::EPERM), "2", &["io_uring_disabled is 2", "set it to 0"]),
            (Some(libc::EACCES), "0", &["security module", "SELinux"]),
            (Some(libc::ENOSYS), "", &["5.15.0-test", "CONFIG_IO_URING", "deploy/seccomp"]),
            (Some(libc::EINVAL), "0", &["5.15.0-test", "Linux 6.1 or later"]),
            (None, "0", &["5.15.0-test", "Linux 6.1 or later"]),
            (Some(libc::ENOMEM), "0", &["memory"]),
            (Some(libc::EMFILE), "0", &["open files"]),
            (Some(libc::ENFILE), "0", &["open files"]),
            (Some(libc::EIO), "0", &["cannot give a ring"]),
        ];
        for (errno, sysctl, words) in expected {
            let text = told(errno, sysctl);
            assert!(words.iter().all(|word| text.contains(word)), "{errno:?}, {sysctl:?}: {text}");
        }
    }

    #[test]
    fn a_refusal_reads_as_one_sentence() {
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        let text = Refusal::by_kernel(&error).to_string();
        assert_eq!(
            text,
            "Cannot allocate memory (os error 12): there is no memory for rings; to have it, raise the limit of memory"
        );
    }
}
