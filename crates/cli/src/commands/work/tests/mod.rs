//! The worker with real programs (POSIX sh) against a small server in memory.

mod double;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::api::{Api, ApiError, DeadLetter, Settings};
use super::program::{Program, Stage};
use super::report::{Reporter, Totals};
use super::runner::{Config, Runner};
use crate::client::Connection;
use crate::output::Output;
use double::{DEAD_TOPIC, Double, SUBSCRIPTION};

struct Worker {
    stage: watch::Sender<Stage>,
    reporter: Arc<Reporter>,
    task: JoinHandle<Result<(), ApiError>>,
    dir: TempDir,
}

impl Worker {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Tells it to stop, waits for that and answers its figures.
    async fn stop(&mut self) -> Totals {
        self.stage.send_modify(|stage| *stage = (*stage).max(Stage::Draining));
        (&mut self.task).await.unwrap().unwrap();
        self.reporter.totals()
    }
}

fn config() -> Config {
    Config {
        batch: 1,
        concurrency: 4,
        linger: Duration::ZERO,
        grace: Duration::from_secs(20),
        exit_idle: None,
        max_attempts_hint: None,
    }
}

fn settings() -> Settings {
    let policy = DeadLetter { topic: DEAD_TOPIC.into(), max_delivery_attempts: 5 };
    Settings { ack_deadline: Duration::from_secs(10), is_ordered: false, dead_letter: Some(policy) }
}

/// Starts a worker on a shell script; `$DIR` is a folder of its own.
async fn start(double: &Double, config: Config, settings: Settings, timeout_s: u64, script: &str) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    let program = Program {
        command: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        timeout: Duration::from_secs(timeout_s),
        environment: vec![("DIR", dir.path().display().to_string())],
    };
    let api = Api::new(Connection::to(double.serve().await, None).unwrap(), SUBSCRIPTION);
    let output = Output { json: false, color: false, progress: false };
    let reporter = Arc::new(Reporter::new(&output, "orders-worker"));
    let stage = watch::Sender::new(Stage::Running);
    let runner = Runner::new(config, program, (api, settings), reporter.clone(), stage.clone());
    Worker { stage, reporter, task: tokio::spawn(runner.run()), dir }
}

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_exit_code_decides() {
    let double = Double::new(DEADLINE, &[("", "ok"), ("", "bad"), ("", "later")]);
    // `later` fails at its first delivery only.
    let script = r#"line=$(cat)
        case "$line" in
            *'"data":"b2s="'*) exit 0;;
            *'"data":"YmFk"'*) echo "the payload is bad" >&2; exit 65;;
            *'"deliveryAttempt":1,'*) exit 75;;
        esac"#;
    let mut worker = start(&double, config(), settings(), 20, script).await;
    double.until("all are settled", double::Model::all_done).await;
    let totals = worker.stop().await;
    assert_eq!(totals, Totals { acked: 2, retried: 1, dead_lettered: 1, unsettled: 0 });
    double.change(|model| {
        assert_eq!(model.attempts(), [1, 1, 2]);
        let [letter] = model.dead.as_slice() else { panic!("one dead letter: {:?}", model.dead) };
        assert_eq!(letter["data"], "YmFk");
        assert_eq!(letter["attributes"]["tenant_id"], "acme");
        assert_eq!(
            letter["attributes"]["levada.dead.reason"],
            "the program ended with 65: the payload is bad"
        );
    });
}

#[tokio::test]
async fn a_line_decides_for_its_message_of_a_batch() {
    let double = Double::new(DEADLINE, &[("", "1"), ("", "2"), ("", "3"), ("", "4")]);
    let script = r#"n=$(wc -l); echo "$n" >> "$DIR/sizes"
        [ "$n" -eq 4 ] || exit 0
        echo "this is talk"
        echo '{"messageId":"1","verdict":"ack"}'
        echo '{"messageId":"2","verdict":"dead_letter","reason":"unknown version"}'
        echo '{"messageId":"3","verdict":"retry","reason":"busy"}'
        echo '{"messageId":"99","verdict":"dead_letter"}'
        exit 1"#;
    let config = Config { batch: 4, concurrency: 1, ..config() };
    let mut worker = start(&double, config, settings(), 20, script).await;
    double.until("all are settled", double::Model::all_done).await;
    let totals = worker.stop().await;
    assert_eq!(worker.read("sizes").split_whitespace().collect::<Vec<_>>(), ["4", "2"]);
    assert_eq!(totals, Totals { acked: 3, retried: 2, dead_lettered: 1, unsettled: 0 });
    double.change(|model| {
        assert_eq!(model.attempts(), [1, 1, 2, 2]);
        assert_eq!(model.dead[0]["attributes"]["levada.dead.reason"], "unknown version");
    });
}

#[tokio::test]
async fn a_key_runs_one_after_another_and_a_failure_holds_its_followers_back() {
    let messages: Vec<(&str, String)> =
        (0..12).map(|n| (if n % 2 == 0 { "a" } else { "b" }, n.to_string())).collect();
    let messages: Vec<(&str, &str)> = messages.iter().map(|(key, data)| (*key, data.as_str())).collect();
    let double = Double::new(DEADLINE, &messages);
    double.change(|model| model.is_ordered = true);
    // A folder is a lock; the third message (id 3) fails at first.
    let script = r#"read -r line
        key=${line#*'"orderingKey":"'}; key=${key%%'"'*}
        id=${line#*'"messageId":"'}; id=${id%%'"'*}
        mkdir "$DIR/lock-$key" 2>/dev/null || echo "$key" >> "$DIR/overlaps"
        case "$id$line" in 3*'"deliveryAttempt":1,'*) status=75;; *) status=0; echo "$id" >> "$DIR/done-$key";; esac
        rmdir "$DIR/lock-$key"; exit $status"#;
    let settings = Settings { is_ordered: true, ..settings() };
    let mut worker = start(&double, config(), settings, 20, script).await;
    double.until("all are settled", double::Model::all_done).await;
    worker.stop().await;
    assert_eq!(worker.read("overlaps"), "", "two messages of a key ran at the same time");
    assert_eq!(worker.read("done-a").split_whitespace().collect::<Vec<_>>(), ["1", "3", "5", "7", "9", "11"]);
    assert_eq!(
        worker.read("done-b").split_whitespace().collect::<Vec<_>>(),
        ["2", "4", "6", "8", "10", "12"]
    );
}

#[tokio::test]
async fn leases_are_renewed_while_the_program_runs() {
    let lease = Duration::from_secs(1);
    let double = Double::new(lease, &[("", "slow")]);
    let settings = Settings { ack_deadline: lease, ..settings() };
    let script = r#"until [ -e "$DIR/go" ]; do sleep 0.02; done"#;
    let mut worker = start(&double, config(), settings, 30, script).await;
    double.until("the lease is renewed four times", |model| model.renewed.len() >= 4).await;
    fs::write(worker.path("go"), "").unwrap();
    double.until("it is settled", double::Model::all_done).await;
    worker.stop().await;
    assert_eq!(double.change(|model| model.attempts()), [1], "its lease ended on the way");
}

#[tokio::test]
async fn draining_finishes_what_runs_and_gives_the_rest_back() {
    // All of one key: one runs, the others wait here.
    let double = Double::new(DEADLINE, &[("k", "1"), ("k", "2"), ("k", "3")]);
    let script = r#"touch "$DIR/started"; until [ -e "$DIR/go" ]; do sleep 0.02; done"#;
    let mut worker = start(&double, config(), settings(), 30, script).await;
    // The program runs, so the worker has the answer of the pull that leased all three.
    file(&worker.path("started")).await;
    assert_eq!(double.change(|model| model.attempts()), [1, 1, 1]);
    worker.stage.send_replace(Stage::Draining);
    double.until("what waited is given back", |model| model.given_back == 2).await;
    let pulls = double.change(|model| model.pulls);
    assert!(!worker.task.is_finished(), "one still runs");
    fs::write(worker.path("go"), "").unwrap();
    let totals = worker.stop().await;
    assert_eq!(totals, Totals { acked: 1, retried: 0, dead_lettered: 0, unsettled: 0 });
    double.change(|model| assert_eq!((model.pulls, model.given_back), (pulls, 2), "no pull after the drain"));
}

#[tokio::test]
async fn what_outlives_the_grace_is_ended_and_given_back() {
    let double = Double::new(DEADLINE, &[("", "1")]);
    let config = Config { grace: Duration::from_millis(100), ..config() };
    let script = r#"sleep 600 & echo $! > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"; wait"#;
    let mut worker = start(&double, config, settings(), 600, script).await;
    let pid = file(&worker.path("pid")).await;
    let totals = worker.stop().await;
    assert_eq!(totals, Totals { acked: 0, retried: 1, dead_lettered: 0, unsettled: 0 });
    assert_eq!(double.change(|model| model.given_back), 1);
    assert!(!is_alive(pid.trim()), "what the program started lives on");
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_with_all_it_started() {
    let double = Double::new(DEADLINE, &[("", "1")]);
    // The second delivery is quick. The first ignores the request to end.
    let script = r#"trap '' TERM
        read -r line; case "$line" in *'"deliveryAttempt":1,'*) ;; *) exit 0;; esac
        sleep 600 & echo $! > "$DIR/pid.new"; mv "$DIR/pid.new" "$DIR/pid"; wait; wait"#;
    let mut worker = start(&double, config(), settings(), 1, script).await;
    let pid = file(&worker.path("pid")).await;
    double.until("it is settled", double::Model::all_done).await;
    let totals = worker.stop().await;
    assert_eq!(totals, Totals { acked: 1, retried: 1, dead_lettered: 0, unsettled: 0 });
    assert!(!is_alive(pid.trim()), "what the program started lives on");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let double = Double::new(DEADLINE, &[("", "ok"), ("", "bad")]);
    double.change(|model| {
        model.failing = [("pull", (2, 503)), ("acknowledge", (2, 503)), ("publish", (1, 500))].into();
    });
    let script = r#"case "$(cat)" in *'"data":"YmFk"'*) exit 65;; esac"#;
    let mut worker = start(&double, config(), settings(), 20, script).await;
    double.until("all are settled", double::Model::all_done).await;
    let totals = worker.stop().await;
    assert_eq!(totals, Totals { acked: 1, retried: 0, dead_lettered: 1, unsettled: 0 });
    assert_eq!(double.change(|model| (model.attempts(), model.dead.len())), (vec![1, 1], 1));
}

#[tokio::test]
async fn a_refusal_ends_the_worker_with_its_text() {
    let double = Double::new(DEADLINE, &[]);
    double.change(|model| model.failing = [("pull", (1, 403))].into());
    let worker = start(&double, config(), settings(), 20, "exit 0").await;
    let error = worker.task.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "Not now [403]");
}

#[tokio::test]
async fn without_a_dead_letter_policy_a_permanent_failure_comes_again() {
    let double = Double::new(DEADLINE, &[("", "1")]);
    let settings = Settings { dead_letter: None, ..settings() };
    let script = r#"case "$(cat)" in *'"deliveryAttempt":3,'*) exit 0;; esac; exit 65"#;
    let mut worker = start(&double, config(), settings, 20, script).await;
    double.until("it is settled", double::Model::all_done).await;
    let totals = worker.stop().await;
    assert_eq!(totals, Totals { acked: 1, retried: 2, dead_lettered: 0, unsettled: 0 });
    assert!(double.change(|model| model.dead.is_empty()));
}

#[tokio::test]
async fn idle_runs_nothing_and_ends_where_that_is_wished() {
    let double = Double::new(DEADLINE, &[]);
    let config = Config { exit_idle: Some(Duration::from_millis(600)), ..config() };
    let worker = start(&double, config, settings(), 20, r#"touch "$DIR/ran""#).await;
    let Worker { task, dir, .. } = worker;
    task.await.unwrap().unwrap();
    assert!(!dir.path().join("ran").exists());
    assert_eq!(double.change(|model| model.pulls), 1, "one pull waits; nothing polls");
}

#[tokio::test]
async fn no_more_run_at_once_than_allowed() {
    let messages = [("", "x"); 9];
    let double = Double::new(DEADLINE, &messages);
    let config = Config { concurrency: 3, ..config() };
    // Each waits until three have begun, or is one of the last; counts who runs beside it.
    let script = r#"id=$$; touch "$DIR/run-$id"
        until [ -e "$DIR/go" ]; do sleep 0.02; done
        ls "$DIR" | grep -c '^run-' >> "$DIR/counts"; rm "$DIR/run-$id""#;
    let mut worker = start(&double, config, settings(), 30, script).await;
    double.until("three are on lease", |model| model.attempts().iter().sum::<u32>() == 3).await;
    fs::write(worker.path("go"), "").unwrap();
    double.until("all are settled", double::Model::all_done).await;
    worker.stop().await;
    let counts = worker.read("counts");
    assert_eq!(counts.lines().count(), 9);
    assert!(counts.lines().all(|n| n.parse::<u32>().unwrap() <= 3), "{counts}");
}

/// Waits for a file and reads it.
async fn file(path: &Path) -> String {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        assert!(tokio::time::Instant::now() < end, "{} does not appear", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process lives; one that has ended and that nobody has asked about does not.
fn is_alive(pid: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
