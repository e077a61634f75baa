use super::*;

fn script(text: &str) -> Launch {
    Launch { command: vec!["sh".into(), "-c".into(), text.into()], ..Launch::default() }
}

async fn launch(launch: Launch) -> (Box<dyn Sandbox>, Arc<Store>) {
    let store = Arc::new(Store::default());
    let sandbox = ProcessSite.launch(launch, store.clone()).await.unwrap();
    (sandbox, store)
}

fn lines(store: &Store) -> Vec<String> {
    store.look(|capture| capture.logs().iter().map(|record| record.raw.clone()).collect())
}

fn count(store: &Store) -> usize {
    store.look(|capture| capture.logs().len())
}

async fn line(store: &Store, text: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let found = store.until(deadline, |capture| capture.logs().iter().find(|record| record.raw == text).cloned());
    assert!(found.await.is_some(), "no line {text:?} in {:?}", lines(store));
}

/// Whether a process of the group still runs; one that nobody has reaped yet does not.
fn alive(group: Pid) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // `pid (comm) state ppid pgrp …`, see proc(5).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        matches!(fields[..], [state, _, pgrp, ..] if state != "Z" && pgrp == group.to_string())
    })
}

fn group(sandbox: &dyn Sandbox) -> Pid {
    Pid::from_raw(sandbox.what().strip_prefix("pid ").unwrap().parse().unwrap())
}

#[tokio::test]
async fn both_streams_are_in_the_store_before_the_exit_and_a_last_line_needs_no_line_feed() {
    let (sandbox, store) = launch(script("echo out; echo err >&2; printf last; exit 3")).await;
    assert_eq!(sandbox.exited().await, "exit status: 3");
    let mut found = lines(&store);
    found.sort();
    assert_eq!(found, ["err", "last", "out"]);
    store.look(|capture| {
        assert!(matches!(capture.lifecycle().first().unwrap().mark, Mark::Started { .. }));
        let exit = capture.lifecycle().last().unwrap();
        assert_eq!(exit.mark, Mark::Exited { status: "exit status: 3".into() });
        assert_eq!(exit.arrival.seq, capture.last_seq());
    });
}

#[tokio::test]
async fn the_service_does_not_inherit_what_would_change_its_telemetry() {
    assert!(
        ["OTEL_SDK_DISABLED", "AWS_LAMBDA_RUNTIME_API", "_X_AMZN_TRACE_ID", "TRACEPARENT"].into_iter().all(is_withheld)
    );
    assert!(!["PATH", "HOME", "AWS_REGION", "AWS_ACCESS_KEY_ID"].into_iter().any(is_withheld));
    let mut told = script("echo $OTEL_SERVICE_NAME; test -n \"$PATH\" && echo path");
    told.env.insert("OTEL_SERVICE_NAME".into(), "told".into());
    let (sandbox, store) = launch(told).await;
    sandbox.exited().await;
    assert_eq!(lines(&store), ["told", "path"]);
}

#[tokio::test]
async fn a_missing_program_or_directory_is_named() {
    let store = Arc::new(Store::default());
    let missing = Launch { command: vec!["no-such-program".into()], directory: Some("/".into()), ..Launch::default() };
    let error = ProcessSite.launch(missing, store.clone()).await.unwrap_err();
    assert_eq!(error.what, "cannot start `no-such-program` in /");
    let nowhere = Launch { directory: Some("/no/such/folder".into()), ..script("true") };
    let error = ProcessSite.launch(nowhere, store.clone()).await.unwrap_err();
    assert!(error.what.contains("/no/such/folder is not a directory"), "{error}");
    let error = ProcessSite.launch(Launch::default(), store).await.unwrap_err();
    assert!(error.what.contains("empty"), "{error}");
}

#[tokio::test]
async fn a_frozen_group_writes_nothing_until_it_is_thawed_and_what_it_wrote_before_is_there() {
    // Long lines, so that a full pipe holds few of them.
    let (sandbox, store) = launch(script("long=$(printf '%2000d' 0); while :; do echo $long; done")).await;
    let more_than = async |lines: usize| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        store.until(deadline, |capture| (capture.logs().len() > lines).then_some(())).await.unwrap();
    };
    more_than(10).await;
    for _ in 0..20 {
        sandbox.freeze().await.unwrap();
        sandbox.freeze().await.unwrap();
        let frozen = count(&store);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(count(&store), frozen);
        sandbox.thaw().await.unwrap();
        sandbox.thaw().await.unwrap();
        more_than(frozen).await;
    }
    sandbox.kill().await;
}

#[tokio::test]
async fn a_frozen_process_is_continued_so_that_the_signal_can_act() {
    let (sandbox, store) =
        launch(script("trap 'echo flushed; exit 0' TERM; echo up; while :; do sleep 0.01; done")).await;
    line(&store, "up").await;
    sandbox.freeze().await.unwrap();
    let exit = sandbox.stop(Signal::SIGTERM, Duration::from_secs(20)).await;
    assert_eq!(exit, Exit { status: "exit status: 0".into(), orderly: true });
    assert_eq!(lines(&store).last().unwrap(), "flushed");
}

#[tokio::test]
async fn a_process_that_ignores_the_signal_is_killed_after_the_grace_period() {
    let (sandbox, store) = launch(script("trap '' TERM; echo up; sleep 600")).await;
    line(&store, "up").await;
    let exit = sandbox.stop(Signal::SIGTERM, Duration::from_millis(50)).await;
    assert_eq!(exit, Exit { status: "signal: 9 (SIGKILL)".into(), orderly: false });
}

#[tokio::test]
async fn a_leader_that_ignores_its_signal_is_killed_with_its_whole_group_after_the_grace_period() {
    let alone = Launch { signal_to: SignalTo::Leader, ..script("trap '' TERM; sleep 600 & echo up; wait") };
    let (sandbox, store) = launch(alone).await;
    line(&store, "up").await;
    let exit = sandbox.stop(Signal::SIGTERM, Duration::from_millis(50)).await;
    assert_eq!(exit, Exit { status: "signal: 9 (SIGKILL)".into(), orderly: false });
    dies_out(group(&*sandbox)).await;
}

/// SIGKILL is on its way when the exit is reported; it acts when a processor gets to it.
async fn dies_out(group: Pid) {
    for _ in 0..1_000_000 {
        if !alive(group) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the group {group} is still running");
}

#[tokio::test]
async fn a_descendant_that_keeps_the_pipe_open_neither_delays_the_exit_for_good_nor_survives_it() {
    let (sandbox, store) = launch(script("sleep 600 & echo parent is gone")).await;
    assert_eq!(sandbox.exited().await, "exit status: 0");
    assert_eq!(lines(&store), ["parent is gone"]);
    dies_out(group(&*sandbox)).await;
}

#[tokio::test]
async fn dropping_a_sandbox_kills_its_whole_group() {
    let (sandbox, store) = launch(script("sleep 600 & echo up; wait")).await;
    line(&store, "up").await;
    drop(sandbox);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let status = store.until(deadline, |capture| match &capture.lifecycle().last()?.mark {
        Mark::Exited { status } => Some(status.clone()),
        _ => None,
    });
    assert_eq!(status.await.as_deref(), Some("signal: 9 (SIGKILL)"));
}
