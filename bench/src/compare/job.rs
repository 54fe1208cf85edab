//! What is to be measured: an upstream, targets in front of it, and one of our own load commands. Pure.

use clap::{Arg, CommandFactory, Parser};

use crate::args::Cli;
use crate::targets::{Running, TargetSpec};

/// The tool that a load calls unless it says otherwise; as in the load commands.
const DEFAULT_TOOL: &str = "echo";

/// One measurement, of one or more rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Options of `mcp-bench upstream`, without its address.
    pub upstream: Vec<String>,
    /// The targets; the first is the one that the others are compared with.
    pub targets: Vec<TargetSpec>,
    /// The load.
    pub load: Load,
    /// How often each target has its turn.
    pub rounds: u32,
    /// Path of the figure that is compared, in the load's JSON report.
    pub figure: String,
}

/// A load command: any subcommand of ours that takes the options by which it is told its target.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The subcommand, like `run`.
    pub kind: String,
    /// Its options, but those that depend on the target.
    pub options: Vec<String>,
    /// The tool that is called, without a target's prefix.
    pub tool: Option<String>,
}

impl Load {
    /// This load with other options in place of its own of the same name.
    #[must_use]
    pub fn with(&self, over: &[String]) -> Self {
        let is_name = |text: &String| text.starts_with("--");
        let mut options = Vec::new();
        let mut replaced = false;
        for option in &self.options {
            // A value goes the way of the name before it.
            if is_name(option) {
                replaced = over.iter().any(|other| is_name(other) && other == option);
            }
            if !replaced {
                options.push(option.clone());
            }
        }
        options.extend_from_slice(over);
        Self { options, ..self.clone() }
    }

    /// The whole argument list against one target, its JSON report going to `json`.
    pub fn arguments(&self, prefix: &str, running: &Running, json: &str) -> Vec<String> {
        let mut list = vec![self.kind.clone()];
        let mut push = |name: &str, value: &str| {
            if self.accepts(name) {
                list.extend([format!("--{name}"), value.to_owned()]);
            }
        };
        push("url", &running.url);
        push("json", json);
        if let Some(pid) = running.pid {
            push("server-pid", &pid.to_string());
        }
        if let Some(file) = &running.ca_file {
            push("ca-file", &file.display().to_string());
        }
        if self.tool.is_some() || !prefix.is_empty() {
            push("tool", &format!("{prefix}{}", self.tool.as_deref().unwrap_or(DEFAULT_TOOL)));
        }
        if running.ca_file.is_none() && !running.url.starts_with("http://") && self.accepts("insecure") {
            list.push("--insecure".to_owned());
        }
        list.extend_from_slice(&self.options);
        list
    }

    /// The command as a person would write it, without the target.
    pub fn words(&self) -> String {
        let tool = self.tool.as_ref().map_or(String::new(), |tool| format!(" --tool {tool}"));
        let options: String = self.options.iter().map(|option| format!(" {option}")).collect();
        format!("{}{tool}{options}", self.kind)
    }

    /// Whether the command line takes this load, said before anything is started.
    ///
    /// # Errors
    /// The command line's own words.
    pub fn check(&self) -> Result<(), String> {
        let cli = Cli::command();
        let kinds: Vec<_> =
            cli.get_subcommands().filter(|c| takes_report(c)).map(|c| c.get_name().to_owned()).collect();
        if !kinds.contains(&self.kind) {
            return Err(format!("`{}` is no load; there are {}", self.kind, kinds.join(", ")));
        }
        let running = Running::outside("http://127.0.0.1:1/mcp".to_owned(), Some(1));
        let arguments = self.arguments("", &running, "-");
        let program = std::iter::once("mcp-bench".to_owned());
        Cli::try_parse_from(program.chain(arguments)).map(|_| ()).map_err(|e| e.to_string().trim().to_owned())
    }

    fn accepts(&self, option: &str) -> bool {
        let cli = Cli::command();
        let command = cli.find_subcommand(&self.kind);
        command.is_some_and(|c| c.get_arguments().any(|a| a.get_long() == Some(option)))
    }
}

/// Whether these options fit `mcp-bench upstream`.
///
/// # Errors
/// The command line's own words.
pub fn check_upstream(options: &[String]) -> Result<(), String> {
    let program = ["mcp-bench", "upstream"].map(str::to_owned);
    let list = program.iter().chain(options);
    Cli::try_parse_from(list).map(|_| ()).map_err(|e| format!("upstream: {}", e.to_string().trim()))
}

/// A load command measures a process and writes a report; `upstream`, for one, does neither.
fn takes_report(command: &clap::Command) -> bool {
    let has = |name: &str| command.get_arguments().map(Arg::get_long).any(|long| long == Some(name));
    has("json") && has("server-pid") && command.get_name() != "compare"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(kind: &str, options: &[&str]) -> Load {
        Load { kind: kind.to_owned(), options: options.iter().map(|&o| o.to_owned()).collect(), tool: None }
    }

    #[test]
    fn a_load_is_checked_by_the_command_it_becomes() {
        assert_eq!(load("run", &["--connections", "4"]).check(), Ok(()));
        assert!(load("run", &["--no-such-option"]).check().unwrap_err().contains("--no-such-option"));
        assert!(load("upstream", &[]).check().unwrap_err().contains("run"));
        assert!(load("compare", &[]).check().is_err());
        assert!(check_upstream(&["--sessions".to_owned()]).is_ok());
        assert!(check_upstream(&["--nonsense".to_owned()]).is_err());
    }

    #[test]
    fn an_option_of_the_target_takes_the_place_of_the_load_s() {
        let over = ["--connections", "8", "--in-flight", "8"].map(str::to_owned);
        let load = load("run", &["--connections", "64", "--shared-session", "--rate", "5"]).with(&over);
        assert_eq!(load.options.join(" "), "--shared-session --rate 5 --connections 8 --in-flight 8");
    }

    #[test]
    fn the_target_decides_about_trust_and_the_tool_s_name() {
        let mut running = Running::outside("https://h/mcp".to_owned(), Some(7));
        let list = load("run", &[]).arguments("a__", &running, "-").join(" ");
        assert_eq!(list, "run --url https://h/mcp --json - --server-pid 7 --tool a__echo --insecure");
        running.ca_file = Some("ca.pem".into());
        let list = load("run", &["--rate", "5"]).arguments("", &running, "-").join(" ");
        assert_eq!(list, "run --url https://h/mcp --json - --server-pid 7 --ca-file ca.pem --rate 5");
    }
}
