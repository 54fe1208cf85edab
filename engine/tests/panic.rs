//! Claim: a shard that panics ends the whole process with a clear last line, on either executor; it never hangs it.
//! Set-up: the test runs itself again as a child whose second shard panics while the first waits for ever.

use std::num::NonZeroUsize;
use std::process::{Command, Stdio};

use mcp_config::Driver;
use mcp_engine::fatal;
use mcp_engine::runtime::{Drive, Plan, Turn, run};

const CHILD: &str = "MCP_TEST_PANIC_DRIVER";

struct Dummy {
    index: usize,
}

impl Drive for Dummy {
    fn turn(&self) -> Turn {
        assert_ne!(self.index, 1, "out of cheese");
        std::thread::park();
        Turn::More
    }
}

fn child(driver: Driver) -> ! {
    fatal::install_panic_hook();
    let plan = Plan { shards: NonZeroUsize::new(2).expect("two is not zero"), pin: false, driver };
    let running = run(&plan, |index, _| Dummy { index });
    match running {
        Ok(running) => running.join(),
        Err(error) => panic!("{error}"),
    }
    unreachable!("a shard that never ends was joined");
}

#[test]
fn a_panicking_shard_ends_the_process() {
    match std::env::var(CHILD).as_deref() {
        Ok("io_uring") => child(Driver::IoUring),
        Ok("epoll") => child(Driver::Epoll),
        _ => {}
    }
    for driver in ["io_uring", "epoll"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_panicking_shard_ends_the_process", "--nocapture"])
            .env(CHILD, driver)
            .stdout(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().last().unwrap_or_default();
        if last.contains("io_uring is refused") {
            // This machine has no io_uring: the gateway would not start on it either.
            continue;
        }
        assert_eq!(output.status.code(), Some(fatal::EXIT_SOFTWARE), "{driver}: {text}");
        assert!(last.starts_with("mcp-gateway: fatal: shard 1 panicked at "), "{driver}: {last}");
        assert!(last.contains("out of cheese") && last.ends_with("the process ends"), "{driver}: {last}");
    }
}
