//! The control groups of a process: where they are mounted, what its memory group holds and may hold, and its share of
//! CPU. Version 1 (a hierarchy per controller) and version 2 (one for all).
//!
//! It only reads; it never makes, joins or changes a group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A version 1 group without a limit says a number near 2^63; above this (bytes) none is meant.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Where a process's group of one controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    version: u8,
    mount: PathBuf,
    dir: PathBuf,
}

/// The memory group of a process.
#[derive(Clone, Debug)]
pub struct MemoryCgroup {
    group: Group,
}

/// A memory group at one moment. What the kernel does not tell is absent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CgroupMemory {
    /// Memory charged to the group, page cache and kernel memory included.
    pub current_bytes: u64,
    /// The highest that it ever was, since the group was made.
    pub peak_bytes: Option<u64>,
    /// What it may at most be; absent: no limit.
    pub limit_bytes: Option<u64>,
    /// Anonymous memory: heaps and stacks.
    pub anonymous_bytes: Option<u64>,
    /// Page cache.
    pub file_bytes: Option<u64>,
    /// Kernel memory of all kinds.
    pub kernel_bytes: Option<u64>,
    /// Of that, slab (version 2 only).
    pub slab_bytes: Option<u64>,
    /// Socket buffers.
    pub socket_bytes: Option<u64>,
}

impl MemoryCgroup {
    /// The memory group of a process; `None` when it has none that can be read, such as the root of version 2.
    pub fn of_process(pid: u32) -> Option<Self> {
        let found = Self { group: Group::of_process(&pid.to_string(), "memory")? };
        found.sample().is_ok().then_some(found)
    }

    /// The group's directory.
    pub fn directory(&self) -> &Path {
        &self.group.dir
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        self.group.version
    }

    /// Reads the group.
    ///
    /// # Errors
    /// When the group does not exist any more or may not be read.
    pub fn sample(&self) -> io::Result<CgroupMemory> {
        let number =
            |file: &str| fs::read_to_string(self.group.dir.join(file)).ok()?.trim().parse::<u64>().ok();
        let (current, names) = match self.group.version {
            1 => ("memory.usage_in_bytes", ["memory.max_usage_in_bytes", "memory.limit_in_bytes"]),
            _ => ("memory.current", ["memory.peak", "memory.max"]),
        };
        let text = fs::read_to_string(self.group.dir.join(current))?;
        let stat = fs::read_to_string(self.group.dir.join("memory.stat")).unwrap_or_default();
        let mut sample = CgroupMemory {
            current_bytes: text.trim().parse().map_err(io::Error::other)?,
            peak_bytes: number(names[0]),
            limit_bytes: number(names[1]).filter(|limit| *limit < NO_LIMIT_BYTES),
            ..CgroupMemory::default()
        };
        let stat = |name: &str| value_of(&stat, name);
        if self.group.version == 1 {
            sample.anonymous_bytes = stat("total_rss");
            sample.file_bytes = stat("total_cache");
            sample.kernel_bytes = number("memory.kmem.usage_in_bytes");
            sample.socket_bytes = number("memory.kmem.tcp.usage_in_bytes");
        } else {
            sample.anonymous_bytes = stat("anon");
            sample.file_bytes = stat("file");
            sample.kernel_bytes = stat("kernel");
            sample.slab_bytes = stat("slab");
            sample.socket_bytes = stat("sock");
        }
        Ok(sample)
    }
}

/// Cores that a process may use by the CPU quotas of its group and of all above; `None`: no quota. `pid` may be `self`.
pub(super) fn cpu_quota_cores(pid: &str) -> Option<f64> {
    let group = Group::of_process(pid, "cpu")?;
    let quotas = group.dir.ancestors().take_while(|dir| dir.starts_with(&group.mount)).filter_map(|dir| {
        let read = |file: &str| fs::read_to_string(dir.join(file)).ok();
        match group.version {
            1 => quota_of(&format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?)),
            _ => quota_of(&read("cpu.max")?),
        }
    });
    quotas.min_by(f64::total_cmp)
}

impl Group {
    fn of_process(pid: &str, controller: &str) -> Option<Self> {
        let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::locate(&memberships, &mounts, controller)
    }

    /// From the contents of `/proc/<pid>/cgroup` and `/proc/self/mountinfo`: version 1 where a hierarchy has this
    /// controller, else version 2.
    fn locate(memberships: &str, mounts: &str, controller: &str) -> Option<Self> {
        let mut unified = None;
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            if controllers.split(',').any(|name| name == controller) {
                return Self::mounted(1, path, mounts, controller);
            }
            if controllers.is_empty() {
                unified = Some(path);
            }
        }
        Self::mounted(2, unified?, mounts, controller)
    }

    fn mounted(version: u8, path: &str, mounts: &str, controller: &str) -> Option<Self> {
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, mount) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let right_one = match version {
                1 => kind == "cgroup" && options.split(',').any(|name| name == controller),
                _ => kind == "cgroup2",
            };
            // A container sees its own group as the root of the mount.
            let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
            let mount = PathBuf::from(mount);
            let dir = mount.join(below.trim_start_matches('/'));
            right_one.then_some(Self { version, mount, dir })
        })
    }
}

/// The value behind `name` in a file of lines `name value`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Cores from `quota period`, both in µs; `max` and -1 mean none.
fn quota_of(text: &str) -> Option<f64> {
    let mut words = text.split_ascii_whitespace().map(str::parse::<f64>);
    let (quota, period) = (words.next()?.ok()?, words.next()?.ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_1_is_found() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Group::locate("4:memory:/pod/a:b\n1:cpu:/\n0::/\n", mounts, "memory").unwrap();
        assert_eq!((found.version, found.dir.to_str().unwrap()), (1, "/sys/fs/cgroup/memory/pod/a:b"));
    }

    #[test]
    fn a_container_sees_its_group_as_the_mounts_root() {
        let mounts = "35 31 0:32 /docker/7 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = Group::locate("4:memory:/docker/7/inner\n", mounts, "memory").unwrap();
        assert_eq!(found.dir, Path::new("/sys/fs/cgroup/memory/inner"));
    }

    #[test]
    fn a_group_of_version_2_is_found() {
        let mounts = "41 31 0:38 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Group::locate("0::/kubepods/pod1\n", mounts, "memory").unwrap();
        assert_eq!((found.version, found.dir.to_str().unwrap()), (2, "/sys/fs/cgroup/kubepods/pod1"));
        assert_eq!(Group::locate("", mounts, "memory"), None);
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(value_of("anonx 1\nanon 2\n", "anon"), Some(2));
        assert_eq!(quota_of("200000 100000\n"), Some(2.0));
        assert_eq!(quota_of("max 100000"), None);
        assert_eq!(quota_of("-1 100000"), None);
    }
}
