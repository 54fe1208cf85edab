//! A memory control group for one target, versions 1 and 2: made below our own group, with a limit, read, and removed.
//!
//! It never moves a process that it did not start. What the kernel holds for the target's sockets counts in it, which
//! resident memory does not show.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How long the kernel may take to let go of a group whose process has ended.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Why there is no group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// This process is in no memory group that it could see.
    #[error("no memory control group is mounted here (neither version 1 nor 2)")]
    NotMounted,
    /// Version 2, and the controller is not given to children.
    #[error(
        "the memory controller is not enabled for groups below {path}; as root: echo +memory > {path}/cgroup.subtree_control"
    )]
    NotDelegated {
        /// The group.
        path: PathBuf,
    },
    /// The file system refused it.
    #[error("{path}: {source} (a memory limit needs root, or a delegated control group)")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// What a group holds at one moment (bytes). A part is absent where the kernel does not count it apart.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct GroupMemory {
    /// All of it. Version 1 limits socket buffers apart; they are added here.
    pub usage_bytes: u64,
    /// Pages of the processes themselves.
    pub resident_bytes: Option<u64>,
    /// The kernel's own structures for them: sockets, page tables, epoll entries.
    pub kernel_bytes: Option<u64>,
    /// Bytes in socket buffers.
    pub socket_bytes: Option<u64>,
}

/// What became of a target's limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GroupReport {
    /// The limit.
    pub limit_bytes: u64,
    /// The most that was ever used, at most (in version 1 the sum of two peaks).
    pub peak_bytes: u64,
    /// The parts, when they were largest together.
    pub at_most: GroupMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group; removed when dropped, after its process has ended.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    version: Version,
    limit_bytes: u64,
    at_most: GroupMemory,
}

impl Group {
    /// Makes a group below our own.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn create(limit_bytes: u64) -> Result<Self, CgroupError> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|source| CgroupError::Io { path: path.into(), source })
        };
        let (parent, version) = parent(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("mcp-bench-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|source| CgroupError::Io { path: path.clone(), source })?;
        let group = Self { path, version, limit_bytes, at_most: GroupMemory::default() };
        match version {
            Version::One => {
                group.set("memory.limit_in_bytes")?;
                // Without a limit of its own, version 1 does not count socket buffers at all.
                group.set("memory.kmem.tcp.limit_in_bytes")?;
            }
            Version::Two => group.set("memory.max")?,
        }
        Ok(group)
    }

    /// The file by which a process enters.
    ///
    /// # Errors
    /// When the path holds a zero byte.
    pub fn entrance(&self) -> io::Result<CString> {
        use std::os::unix::ffi::OsStrExt;
        CString::new(self.path.join("cgroup.procs").as_os_str().as_bytes()).map_err(io::Error::other)
    }

    /// Looks at the group and remembers the largest.
    pub fn sample(&mut self) {
        let now = self.memory();
        if now.usage_bytes >= self.at_most.usage_bytes {
            self.at_most = now;
        }
    }

    /// What was seen of it.
    pub fn report(&mut self) -> GroupReport {
        self.sample();
        let peak = match self.version {
            // The two need not have peaked together: the sum is at most too large.
            Version::One => self
                .number("memory.max_usage_in_bytes")
                .map(|peak| peak + self.number("memory.kmem.tcp.max_usage_in_bytes").unwrap_or(0)),
            Version::Two => self.number("memory.peak"),
        };
        let peak_bytes = peak.unwrap_or(0).max(self.at_most.usage_bytes);
        GroupReport { limit_bytes: self.limit_bytes, peak_bytes, at_most: self.at_most }
    }

    fn memory(&self) -> GroupMemory {
        let stat = fs::read_to_string(self.path.join("memory.stat")).unwrap_or_default();
        match self.version {
            Version::One => {
                let socket_bytes = self.number("memory.kmem.tcp.usage_in_bytes");
                let usage = self.number("memory.usage_in_bytes").unwrap_or(0);
                GroupMemory {
                    usage_bytes: usage + socket_bytes.unwrap_or(0),
                    resident_bytes: stat_field(&stat, "rss"),
                    kernel_bytes: self.number("memory.kmem.usage_in_bytes"),
                    socket_bytes,
                }
            }
            Version::Two => GroupMemory {
                usage_bytes: self.number("memory.current").unwrap_or(0),
                resident_bytes: stat_field(&stat, "anon"),
                kernel_bytes: stat_field(&stat, "kernel"),
                socket_bytes: stat_field(&stat, "sock"),
            },
        }
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }

    fn set(&self, file: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        fs::write(&path, self.limit_bytes.to_string()).map_err(|source| CgroupError::Io { path, source })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + REMOVE_LIMIT;
        while fs::remove_dir(&self.path).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn stat_field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The group below which ours is made.
fn parent(mountinfo: &str, own: &str) -> Result<(PathBuf, Version), CgroupError> {
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        let mut right = right.split(' ');
        let version = match (right.next(), right.nth(1)) {
            (Some("cgroup"), Some(options)) if options.split(',').any(|o| o == "memory") => Version::One,
            (Some("cgroup2"), _) if has_memory(Path::new(point)) => Version::Two,
            _ => continue,
        };
        let group = own_group(own, version).unwrap_or("/");
        // In a container the mount may show only a part of the tree, and our path may lie outside it.
        let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
        let here = Path::new(point).join(below.strip_prefix("/").unwrap_or(below));
        let here = if here.is_dir() { here } else { PathBuf::from(point) };
        return match version {
            Version::One => Ok((here, version)),
            Version::Two => delegated(here, Path::new(point)).map(|path| (path, version)),
        };
    }
    Err(CgroupError::NotMounted)
}

fn own_group(own: &str, version: Version) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let ours = match version {
            Version::One => controllers.split(',').any(|c| c == "memory"),
            Version::Two => controllers.is_empty(),
        };
        ours.then_some(path)
    })
}

fn has_memory(point: &Path) -> bool {
    lists_memory(&point.join("cgroup.controllers"))
}

/// A group of version 2 that holds processes cannot give the controller to children, but its parent may.
fn delegated(here: PathBuf, top: &Path) -> Result<PathBuf, CgroupError> {
    let gives = |path: &Path| lists_memory(&path.join("cgroup.subtree_control"));
    if gives(&here) {
        return Ok(here);
    }
    match here.parent() {
        Some(parent) if parent.starts_with(top) && gives(parent) => Ok(parent.to_owned()),
        _ => Err(CgroupError::NotDelegated { path: here }),
    }
}

fn lists_memory(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|c| c == "memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_our_own_group_or_the_top_of_what_is_mounted() {
        // Version 1; the second path does not exist, as in a container that sees only its own part.
        let top = std::env::temp_dir();
        let mounts = format!(
            "31 23 0:28 / /sys rw - tmpfs tmpfs rw\n35 31 0:32 / {} rw,relatime - cgroup cgroup rw,memory\n",
            top.display()
        );
        let (path, version) = parent(&mounts, "4:memory:/no-such-group\n0::/\n").unwrap();
        assert_eq!((path, version), (top, Version::One));
        assert!(matches!(parent("", "0::/"), Err(CgroupError::NotMounted)));
    }

    #[test]
    fn own_groups_are_told_apart_by_version() {
        let own = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/c\n";
        assert_eq!(own_group(own, Version::One), Some("/a/b"));
        assert_eq!(own_group(own, Version::Two), Some("/c"));
    }

    #[test]
    fn fields_are_whole_words() {
        assert_eq!(stat_field("rss_huge 1\nrss 2\n", "rss"), Some(2));
        assert_eq!(stat_field("cache 1\n", "rss"), None);
    }
}
