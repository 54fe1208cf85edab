//! A scenario's result as a table. Pure formatting.

use std::fmt;

use super::args::ScenarioReport;
use super::goal::Verdict;

impl fmt::Display for ScenarioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.title, self.why)?;
        for cell in &self.cells {
            writeln!(f, "{cell}")?;
        }
        if self.goals.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {:<54}{:>14}  met", "goal", "figure")?;
        for goal in &self.goals {
            let figure = goal.figure.map_or("-".to_owned(), plain);
            let met = match goal.verdict {
                Verdict::Met => "yes",
                Verdict::Missed => "NO",
                Verdict::NoFigure => "NO (no such figure)",
                Verdict::Skipped => "skipped",
            };
            let cell = if goal.cell.is_empty() { String::new() } else { format!("  ({})", goal.cell) };
            writeln!(f, "  {:<54}{figure:>14}  {met}{cell}", goal.goal)?;
        }
        Ok(())
    }
}

/// Whole numbers as such, others with three digits.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
