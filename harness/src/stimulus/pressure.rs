//! How long this machine was short of processors while a request was under way.
//!
//! Linux counts it: in `/proc/pressure/cpu`, `some … total=` is the time in microseconds during which some task was ready to run and
//! had no processor ("PSI - Pressure Stall Information" in the kernel's documentation). An answer that took long on such a
//! machine says less about the service.

use std::time::Duration;

/// The counter at one moment; without a value where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pressure(Option<Duration>);

impl Pressure {
    /// As it is now.
    pub(crate) fn now() -> Self {
        Self(std::fs::read_to_string("/proc/pressure/cpu").ok().and_then(|text| total(&text)))
    }

    /// How much it has grown since; nothing where nobody counts.
    pub(crate) fn since(self) -> Duration {
        match (self.0, Self::now().0) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => Duration::ZERO,
        }
    }
}

fn total(text: &str) -> Option<Duration> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let micros = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    micros.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_that_of_tasks_that_waited_and_in_microseconds() {
        let text = "some avg10=85.67 avg60=78.33 avg300=70.21 total=653426581\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total(text), Some(Duration::from_micros(653_426_581)));
        assert_eq!(total("full avg10=0.00 total=7\n"), None);
        assert_eq!(total("some avg10=0.00 total=many\n"), None);
    }

    #[test]
    fn where_nobody_counts_nothing_has_grown() {
        assert_eq!(Pressure(None).since(), Duration::ZERO);
    }
}
