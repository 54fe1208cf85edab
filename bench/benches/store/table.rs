//! What the rounds gave: owns the medians, the ratios and what is printed.

use super::VALUE_BYTES;
use super::callers::Load;
use super::usage::Sample;

/// The samples of each candidate, by round.
pub(crate) struct Table(Vec<(&'static str, Vec<Sample>)>);

impl Table {
    pub(crate) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Table(names.map(|name| (name, Vec::new())).collect())
    }

    pub(crate) fn add(&mut self, place: usize, sample: Sample) {
        self.0[place].1.push(sample);
    }

    /// Prints the cell, and whether the goal is met; 1 if it is not. The goal is for our client on the first of its drivers.
    pub(crate) fn print(&self, load: &Load, goal: f64) -> usize {
        println!("\n{}, {VALUE_BYTES} bytes, {} callers", load.kind.name(), load.callers);
        println!(
            "  {:<16} {:>14} {:>14} {:>9}  to the better crate",
            "client", "per s of CPU", "per s", "us of CPU"
        );
        for (name, samples) in &self.0 {
            let rate = median(samples.iter().map(Sample::per_cpu_second));
            print!(
                "  {name:<16} {rate:>14.0} {:>14.0} {:>9.2}",
                median(samples.iter().map(Sample::per_second)),
                1e6 / rate
            );
            match self.ratios(samples) {
                Some(ratios) => {
                    let (least, most) = ratios
                        .iter()
                        .fold((f64::MAX, 0.0_f64), |(least, most), r| (least.min(*r), most.max(*r)));
                    println!("  {:.2} ({least:.2} to {most:.2})", median(ratios.into_iter()));
                }
                None => println!(),
            }
        }
        let Some(ratios) = self.0.first().and_then(|(_, ours)| self.ratios(ours)) else { return 0 };
        let met = median(ratios.into_iter()) >= goal;
        println!("  goal: at least {goal:.1} times the better crate: {}", if met { "met" } else { "MISSED" });
        usize::from(!met)
    }

    /// Of each round: the candidate's rate over the higher one of the crates'.
    fn ratios(&self, samples: &[Sample]) -> Option<Vec<f64>> {
        let crates: Vec<_> = (self.0.iter())
            .filter(|(name, _)| super::CRATES.iter().any(|known| known.name == *name))
            .map(|(_, samples)| samples)
            .collect();
        if crates.len() < super::CRATES.len() {
            return None;
        }
        let better = |round: usize| crates.iter().map(|of| of[round].per_cpu_second()).fold(0.0, f64::max);
        Some(samples.iter().enumerate().map(|(round, s)| s.per_cpu_second() / better(round)).collect())
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
