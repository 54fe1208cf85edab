//! Owns what a container runtime confines a process by: filters of system calls, also those of a profile in the form of the OCI
//! runtime specification, and the limit of locked memory. A confined process cannot rid itself of them, nor can what it starts.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::Value;
use syscalls::Sysno;

/// The calls of io_uring: what container runtimes refuse, and what the gateway's own profile adds to theirs.
pub const IO_URING: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

/// By which calls a filter knows a call: without rules any is meant, with rules those for which one of them holds.
type Calls = BTreeMap<i64, Vec<SeccompRule>>;

/// What a process is confined by; nothing, by default.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    filters: Vec<BpfProgram>,
    locked_bytes: Option<u64>,
}

impl Confinement {
    /// Answers these calls with an error, besides what it does already.
    #[must_use]
    pub fn refusing(self, calls: &[&str], errno: i32) -> Self {
        self.acting(calls, SeccompAction::Errno(errno.cast_unsigned()))
    }

    /// Kills the process at one of these calls, besides what it does already.
    #[must_use]
    pub fn killing(self, calls: &[&str]) -> Self {
        self.acting(calls, SeccompAction::KillProcess)
    }

    /// Limits the memory that may be locked, hard.
    #[must_use]
    pub fn locked_memory(mut self, bytes: u64) -> Self {
        self.locked_bytes = Some(bytes);
        self
    }

    /// As a runtime does that is given this profile: what its rules allow is allowed, what they refuse is refused by their error,
    /// all else by the profile's. Names that this machine's architecture does not have are passed over, as runtimes do.
    ///
    /// # Panics
    /// When the profile has a form that this does not know.
    #[must_use]
    pub fn profile(profile: &Value) -> Self {
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let default = errno(&profile["defaultErrnoRet"]);
        let (mut allowed, mut refused) = (Calls::new(), Vec::new());
        for rule in profile["syscalls"].as_array().expect("rules") {
            let names =
                || rule["names"].as_array().expect("names").iter().map(|name| name.as_str().expect("a name"));
            let is_allowed = rule["action"] == "SCMP_ACT_ALLOW";
            assert!(is_allowed || rule["action"] == "SCMP_ACT_ERRNO", "{rule}");
            let conditions: Vec<_> = rule["args"].as_array().into_iter().flatten().map(condition).collect();
            for number in names().filter_map(number) {
                let rules = allowed.entry(number).or_default();
                if !conditions.is_empty() {
                    rules.push(SeccompRule::new(conditions.clone()).expect("a rule"));
                }
            }
            if !is_allowed {
                // Of two filters that refuse, the later one says how.
                refused.push((names().filter_map(number).collect::<Vec<_>>(), errno(&rule["errnoRet"])));
            }
        }
        let mut confinement = Self::default();
        confinement.filters.push(program(allowed, SeccompAction::Allow, SeccompAction::Errno(default)));
        for (numbers, errno) in refused {
            let calls = numbers.into_iter().map(|number| (number, Vec::new())).collect();
            confinement.filters.push(program(calls, SeccompAction::Errno(errno), SeccompAction::Allow));
        }
        confinement
    }

    fn acting(mut self, calls: &[&str], action: SeccompAction) -> Self {
        let calls = calls.iter().map(|name| (number(name).expect("a system call"), Vec::new())).collect();
        self.filters.push(program(calls, action, SeccompAction::Allow));
        self
    }

    /// Confines the process that `command` starts.
    pub(crate) fn apply(&self, command: &mut Command) {
        let Self { filters, locked_bytes } = self.clone();
        if filters.is_empty() && locked_bytes.is_none() {
            return;
        }
        // SAFETY: setrlimit, prctl and seccomp are async-signal-safe; the filters were made before the fork.
        unsafe {
            command.pre_exec(move || {
                if let Some(bytes) = locked_bytes {
                    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
                    if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                filters.iter().try_for_each(|filter| {
                    seccompiler::apply_filter(filter).map_err(|_| io::Error::last_os_error())
                })
            });
        }
    }
}

fn program(calls: Calls, matching: SeccompAction, other: SeccompAction) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that filters are made for");
    let filter = SeccompFilter::new(calls, other, matching, arch).expect("a filter");
    filter.try_into().expect("a program")
}

fn number(name: &str) -> Option<i64> {
    Sysno::from_str(name).ok().map(|number| i64::from(number.id()))
}

fn errno(value: &Value) -> u32 {
    value.as_u64().and_then(|errno| errno.try_into().ok()).expect("an errno")
}

fn condition(arg: &Value) -> SeccompCondition {
    let field = |name: &str| arg[name].as_u64().unwrap_or_else(|| panic!("{name} of {arg}"));
    let (operator, value) = match arg["op"].as_str() {
        Some("SCMP_CMP_EQ") => (SeccompCmpOp::Eq, field("value")),
        Some("SCMP_CMP_NE") => (SeccompCmpOp::Ne, field("value")),
        Some("SCMP_CMP_MASKED_EQ") => (SeccompCmpOp::MaskedEq(field("value")), field("valueTwo")),
        _ => panic!("another operator: {arg}"),
    };
    let index = field("index").try_into().expect("six arguments at most");
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value).expect("a condition")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shell(confinement: &Confinement, script: &str) -> std::process::Output {
        let mut command = Command::new("sh");
        confinement.apply(command.arg("-c").arg(script));
        command.output().expect("a shell")
    }

    #[test]
    fn a_refused_call_fails_by_its_error_and_others_go_on() {
        let confinement = Confinement::default().refusing(&["mkdir", "mkdirat"], libc::EPERM);
        let output = shell(&confinement, "pwd && mkdir /tmp/mcp-confined");
        assert!(!output.status.success() && !output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("not permitted"), "{output:?}");
    }

    #[test]
    fn a_forbidden_call_kills() {
        let output = shell(&Confinement::default().killing(&["chdir"]), "cd / && echo alive");
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }

    #[test]
    fn a_profile_allows_what_it_names_under_its_conditions() {
        let profile = |allowed: &[&str]| {
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
                {"names": allowed, "action": "SCMP_ACT_ALLOW"},
                {"names": ["kill"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 1, "value": 0xff, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["chdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]})
        };
        let mut names: Vec<&str> = Sysno::iter().map(|number| number.name()).collect();
        names.retain(|name| !matches!(*name, "kill" | "chdir" | "mkdir" | "mkdirat"));
        let output = shell(
            &Confinement::profile(&profile(&names)),
            "kill -0 $$ && echo may ask; kill -15 $$ || cd / || mkdir /tmp/mcp-confined || echo alive",
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "may ask\nalive\n");
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        let said: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        // In order: the profile's error for a kill that its condition does not hold for, the rule's, the profile's.
        let [first, second, third] = said[..] else { panic!("not three lines: {said:?}") };
        assert!(first.contains("not implemented"), "{first}");
        assert!(second.contains("permission denied") || second.contains("can't cd"), "{second}");
        assert!(third.contains("not implemented"), "{third}");
    }

    #[test]
    fn locked_memory_is_limited() {
        let output = shell(&Confinement::default().locked_memory(64 << 10), "ulimit -l");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "64");
    }
}
