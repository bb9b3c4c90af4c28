//! Whether each task can work: requested by readiness, on the task's connection
//! and with the statements of requests. Only there a role's connection limit, a
//! pooler, or missing privileges, columns and functions are visible.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::failure::Failure;
use super::shared::Shared;
use super::{accompanying, insert_full, messages};

/// Maximum time of a task's response.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often in a row a task may fail to respond without other progress, after its maximum work time.
const SILENCES_MAX: u32 = 3;

/// The receiver of a task's finding.
pub(super) type Ask = oneshot::Sender<Result<(), Failure>>;

/// All tasks that work for requests, to be tested.
#[derive(Default)]
pub(super) struct Probes {
    ways: Vec<Way>,
}

/// The channel to a task.
struct Way {
    ask: mpsc::Sender<Ask>,
    /// Its progress at the last test.
    seen: u64,
    /// How often it did not respond since, and its last response.
    silences: u32,
    heard: Instant,
}

impl Probes {
    /// The channel of the next task.
    pub fn add(&mut self) -> mpsc::Receiver<Ask> {
        let (ask, asked) = mpsc::channel(1);
        self.ways.push(Way { ask, seen: 0, silences: 0, heard: Instant::now() });
        asked
    }

    /// Tests all of them at once, and records their responses.
    pub async fn ask(&mut self, shared: &Shared) {
        let asked = self.ways.iter_mut().map(|way| {
            if way.silences == 0 {
                way.heard = Instant::now();
            }
            let (reply, answer) = oneshot::channel();
            // A busy task still has the previous request.
            way.ask.try_send(reply).is_ok().then_some(answer)
        });
        let (asked, end): (Vec<_>, _) = (asked.collect(), Instant::now() + PATIENCE);
        for ((asked, task), Way { seen, silences, heard, .. }) in
            asked.into_iter().zip(&shared.tasks).zip(&mut self.ways)
        {
            let answer = match asked {
                Some(answer) => tokio::time::timeout_at(end, answer).await.ok().and_then(Result::ok),
                None => None,
            };
            let done = task.done();
            let is_busy = std::mem::replace(seen, done) != done;
            match answer {
                Some(Ok(())) => {
                    *silences = 0;
                    task.set_fault(None);
                }
                Some(Err(failure)) if failure.health().is_some() => task.set_fault(Some(failure)),
                _ if is_busy => *silences = 0,
                _ => {
                    *silences += 1;
                    if *silences >= SILENCES_MAX && heard.elapsed() >= task.patience {
                        let what = if task.writes { "writes" } else { "reads" };
                        let why = format!("the task that {what} gets no response within {} s", PATIENCE.as_secs());
                        task.set_fault(Some(Failure::Lost(why)));
                    }
                }
            }
        }
    }
}

/// All statements of a batch, with no rows, and rolled back: the server checks
/// privileges, columns and functions anyway. With `is_whole` also a message like the last
/// stored one, because the server refused some: a constraint or a trigger may refuse all.
pub(super) fn write(commit: &str, is_whole: bool) -> String {
    let statements = [
        messages::INSERT,
        messages::STORED,
        accompanying::LOOK,
        accompanying::BRING_PAYLOADS,
        accompanying::BRING_DETAILS,
        accompanying::BRING_STATUSES,
        insert_full::BRING_EVENTS,
        insert_full::FORGET_UNREADABLE,
    ];
    let of_nothing = statements.map(of_nothing).join("; ");
    let message = if is_whole { WHOLE.replace("$1", &format!("'{commit}'")) } else { String::new() };
    format!("{}'{commit}'; {of_nothing}; {message} ROLLBACK", insert_full::BEGIN)
}

/// A message like the last one, under an unused id, with deferred constraints.
const WHOLE: &str = "\
    SELECT f.* FROM (
        (SELECT from_msisdn, to_msisdn, ts, text, text_exact, created_at FROM messages ORDER BY arrival DESC LIMIT 1)
        UNION ALL SELECT '+10', '+10', '2025-01-15T10:00:00Z', 'probe', NULL, '2025-01-15T10:00:00Z' LIMIT 1
    ) m, LATERAL postroom_file(
        ARRAY['postroom-probe-' || md5(random()::text)], ARRAY[m.from_msisdn], ARRAY[m.to_msisdn], ARRAY[m.ts],
        ARRAY[m.text], ARRAY[m.text_exact], ARRAY[m.created_at], 0, $1) f;
    SET CONSTRAINTS ALL IMMEDIATE;";

/// A statement with an empty value for each parameter.
fn of_nothing(statement: &str) -> String {
    let mut parts = statement.split('$');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        format!("{text}NULL{}", part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_of_nothing_has_no_values() {
        assert_eq!(of_nothing("SELECT f($1, $12) WHERE $2"), "SELECT f(NULL, NULL) WHERE NULL");
        assert_eq!(of_nothing("SELECT 1"), "SELECT 1");
        assert!(!write("on", true).contains('$'));
    }
}
