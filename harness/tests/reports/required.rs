//! What a test needs and a machine may not have.

use std::io::Write;

/// Says that something is left out because `what` is missing; panics where `TRACEGATE_TEST_REQUIRE`, a list with commas,
/// names it.
pub fn missing(what: &str, left_out: &str, why: &str) {
    let required = std::env::var("TRACEGATE_TEST_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|name| name.trim() == what);
    assert!(!required, "TRACEGATE_TEST_REQUIRE asks for {what}: {why}");
    // Past the capture of the test's output, which nobody reads when it passes.
    let _ = writeln!(std::io::stderr(), "\nleft out: {left_out}: {why}");
}
