//! How long this machine held up what ran on it while a request was under way.
//!
//! Linux counts it. In `/proc/pressure/cpu`, `…/io` and `…/memory`, `some … total=` is the time in microseconds during which some task
//! was ready to run and had no processor, waited for a disk, or for memory ("PSI - Pressure Stall Information" in the kernel's
//! documentation). `steal` in `/proc/stat` is the time that a hypervisor gave to others ("proc_stat(5)", in hundredths of a
//! second, of all processors together), of which the guest's own figures know nothing. Where a virtual machine stood still as a
//! whole and its host says nothing of it, only the clock shows it: a thread that wants to be woken every few milliseconds is late
//! by as much. An answer that took long on such a machine says less about the service.

use std::{
    fs::read_to_string,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What tasks wait for.
const RESOURCES: [&str; 3] = ["cpu", "io", "memory"];

/// `USER_HZ`, which is 100 on every architecture that Linux counts in user space for.
const TICK: Duration = Duration::from_millis(10);

/// How often the thread that measures standstills wants to be woken.
const BEAT: Duration = Duration::from_millis(5);

/// By less it is late on any machine.
const USUAL: Duration = Duration::from_millis(1);

/// Being late by so much in one go is a standstill that is told of: exporters give up after seconds.
const STANDSTILL: Duration = Duration::from_secs(1);

/// A time in which nothing ran on this machine, as far as the thread that measures it can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standstill {
    /// When it began, in nanoseconds since the Unix epoch.
    pub(crate) from: u64,
    /// How long it took, in microseconds.
    pub(crate) micros: u64,
}

static STANDSTILLS: Mutex<Vec<Standstill>> = Mutex::new(Vec::new());

/// Those since `unix_nano`, in nanoseconds since the Unix epoch, in their order.
pub(crate) fn standstills(since: u64) -> Vec<Standstill> {
    LazyLock::force(&LATE);
    let all = STANDSTILLS.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().copied().filter(|standstill| standstill.from >= since).collect()
}

/// By how much that thread was late so far, in microseconds.
static LATE: LazyLock<&'static AtomicU64> = LazyLock::new(|| {
    let late: &AtomicU64 = Box::leak(Box::default());
    // Without it a standstill goes unnoticed, as it would where no thread is to be had.
    let _ = thread::Builder::new().name("standstills".into()).spawn(move || measure(late));
    late
});

fn unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn measure(late: &AtomicU64) -> ! {
    loop {
        let began = Instant::now();
        let from = unix_nano();
        thread::park_timeout(BEAT);
        let by = began.elapsed().saturating_sub(BEAT);
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        if by > USUAL {
            late.fetch_add(micros, Ordering::Relaxed);
        }
        if by > STANDSTILL {
            STANDSTILLS.lock().unwrap_or_else(PoisonError::into_inner).push(Standstill { from, micros });
        }
    }
}

/// The counters at one moment, those of the system added up; nothing where nobody counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pressure {
    counted: Duration,
    late: Duration,
}

impl Pressure {
    /// As it is now.
    pub(crate) fn now() -> Self {
        let late = Duration::from_micros(LATE.load(Ordering::Relaxed));
        let stalled =
            |resource| read_to_string(format!("/proc/pressure/{resource}")).ok().and_then(|text| total(&text));
        let stolen = read_to_string("/proc/stat").ok().and_then(|text| stolen(&text));
        Self { counted: RESOURCES.into_iter().filter_map(stalled).chain(stolen).sum(), late }
    }

    /// How much it has grown since. What the thread was late by may have been counted too, so the larger of both.
    pub(crate) fn since(self) -> Duration {
        let now = Self::now();
        now.counted.saturating_sub(self.counted).max(now.late.saturating_sub(self.late))
    }
}

fn total(text: &str) -> Option<Duration> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let micros = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    micros.parse().ok().map(Duration::from_micros)
}

/// The eighth figure of the line for all processors; older kernels have fewer.
fn stolen(text: &str) -> Option<Duration> {
    let all = text.lines().find(|line| line.starts_with("cpu "))?;
    all.split_whitespace().nth(8)?.parse().ok().map(|ticks: u32| TICK * ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_what_is_counted_and_what_the_clock_shows_has_held_up() {
        let before = Pressure::now();
        let ahead = Pressure { counted: before.counted + Duration::from_secs(3_600), ..before };
        LATE.fetch_add(7_000_000, Ordering::Relaxed);
        assert!((7..60).contains(&ahead.since().as_secs()), "what nobody counted is what the clock shows");
        let long_ago = Pressure { counted: Duration::ZERO, late: Pressure::now().late };
        assert!(long_ago.since() >= before.counted);
    }

    #[test]
    fn the_counter_is_that_of_tasks_that_waited_and_in_microseconds() {
        let text = "some avg10=85.67 avg60=78.33 avg300=70.21 total=653426581\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(total(text), Some(Duration::from_micros(653_426_581)));
        assert_eq!(total("full avg10=0.00 total=7\n"), None);
        assert_eq!(total("some avg10=0.00 total=many\n"), None);
    }

    #[test]
    fn what_a_hypervisor_took_is_the_eighth_figure_and_in_hundredths_of_a_second() {
        assert_eq!(
            stolen("cpu  1 2 3 4 5 6 7 1240 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"),
            Some(Duration::from_millis(12_400))
        );
        assert_eq!(stolen("cpu  1 2 3 4\n"), None);
        assert_eq!(stolen("intr 1 2 3 4 5 6 7 8 9\n"), None);
    }
}
