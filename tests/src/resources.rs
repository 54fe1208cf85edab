//! Owns what a test does to limits of its process and sees of another's memory.

/// Raises this process's limit of open files to its hard limit, and returns that.
///
/// # Panics
/// When the system refuses it.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value of the right type.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(got, 0, "RLIMIT_NOFILE: {}", std::io::Error::last_os_error());
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "RLIMIT_NOFILE: {}", std::io::Error::last_os_error());
    limit.rlim_max
}

/// The resident memory of a process, in bytes.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmRSS:")
}

/// The most resident memory that a process has had so far, in bytes.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn peak_resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmHWM:")
}

fn status_bytes(process: u32, field: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("{path} has no {field}")) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory_grow() {
        let before = resident_bytes(std::process::id());
        let held = vec![1_u8; 64 << 20];
        let after = resident_bytes(std::process::id());
        assert!(after - before > 32 << 20, "{before} {after} {}", held[1]);
        assert!(peak_resident_bytes(std::process::id()) >= after);
        assert!(raise_open_files() > 0);
    }
}
