//! The inbox of all measurements: three years of messages, each a function of its index alone.

use std::fmt::Write;

use super::random::Random;
use super::texts::Vocabulary;

/// Different senders.
const SENDERS: usize = 50_000;
/// How fast senders become rarer. With 50,000 senders the first writes one message in twenty.
const SENDERS_EXPONENT: f64 = 0.9;
/// 2023-11-01T00:00:00Z, the first day.
const FIRST_SECOND: i64 = 1_698_796_800;
/// Three years.
const SECONDS: u64 = 1_096 * 86_400;
/// Messages are a little earlier or later than their neighbours.
const JITTER_SECONDS: u64 = 120;
/// One fresh message in a hundred was delayed, for at most three days.
const LATE_SECONDS: u64 = 3 * 86_400;

/// Streams of random numbers, so that old and fresh messages never share an id.
const OLD: u64 = 1;
const FRESH: u64 = 2;

/// A message, in reused buffers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message {
    /// Random, like the ids of providers.
    pub id: String,
    /// The sender.
    pub from: String,
    /// The recipient: one of our few numbers.
    pub to: String,
    /// When it was sent.
    pub ts: String,
    /// The text, if `has_text`.
    pub text: String,
    /// Whether there is a text; it may be empty.
    pub has_text: bool,
    /// When the original service stored it.
    pub created_at: String,
}

/// Creates messages.
#[derive(Debug)]
pub struct Inbox {
    rows: u64,
    /// The cumulative share of the senders up to each, the last being 1.
    shares: Vec<f64>,
    vocabulary: Vocabulary,
}

impl Inbox {
    /// An inbox that contains `rows` messages at first.
    pub fn new(rows: u64) -> Self {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=SENDERS)
            .map(|rank| {
                sum += (rank as f64).powf(-SENDERS_EXPONENT);
                sum
            })
            .collect();
        let shares = sums.into_iter().map(|part| part / sum).collect();
        Self { rows, shares, vocabulary: Vocabulary::new() }
    }

    /// The number of its initial messages.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Message `index` of the initial ones, in the order of arrival.
    pub fn old(&self, index: u64, message: &mut Message) {
        let mut random = Random::at(OLD, index);
        let second = index as u128 * u128::from(SECONDS) / u128::from(self.rows.max(1));
        let second = FIRST_SECOND + second as i64 + random.below(JITTER_SECONDS) as i64;
        let stored = second + random.below(3) as i64;
        self.fill(&mut random, second, message);
        write_time(stored, &mut message.created_at);
        message.has_text = self.vocabulary.write(index, self.rows, &mut random, &mut message.text).is_some();
    }

    /// Message `index` of those that arrive during the measurement: on the days after the last, in order except for a
    /// jitter and late ones. It contains no planted word.
    pub fn fresh(&self, index: u64, message: &mut Message) {
        let mut random = Random::at(FRESH, index);
        let late = if random.below(100) == 0 { random.below(LATE_SECONDS) } else { random.below(JITTER_SECONDS) };
        let second = FIRST_SECOND + SECONDS as i64 + (index / 1_000) as i64 - late as i64;
        self.fill(&mut random, second, message);
        message.has_text = self.vocabulary.write_unplanted(&mut random, &mut message.text).is_some();
    }

    /// A random sender, with the probability of its share.
    pub fn any_sender(&self, random: &mut Random) -> String {
        sender(self.any_rank(random))
    }

    fn any_rank(&self, random: &mut Random) -> usize {
        let share = random.fraction();
        self.shares.partition_point(|up_to| *up_to <= share)
    }

    fn fill(&self, random: &mut Random, second: i64, message: &mut Message) {
        message.clear();
        // 38 characters; Meta's are longer, UUIDs shorter.
        write!(message.id, "wamid.{:016x}{:016x}", random.next(), random.next())
            .expect("writing to a String cannot fail");
        write_sender(self.any_rank(random), &mut message.from);
        message.to.push_str(random.pick(&["+14155550100", "+442071838750", "+819012345678"]));
        write_time(second, &mut message.ts);
    }
}

impl Message {
    fn clear(&mut self) {
        for part in [&mut self.id, &mut self.from, &mut self.to, &mut self.ts, &mut self.text, &mut self.created_at] {
            part.clear();
        }
    }

    /// The text, or none.
    pub fn text(&self) -> Option<&str> {
        self.has_text.then_some(&self.text)
    }
}

/// The number of the most frequent sender: about every twentieth message.
pub fn busiest_sender() -> String {
    sender(0)
}

/// The number of a sender, the most frequent first.
fn sender(rank: usize) -> String {
    let mut number = String::new();
    write_sender(rank, &mut number);
    number
}

fn write_sender(rank: usize, out: &mut String) {
    // Coprime with the limit: no two senders share a number, and numbers of neighbouring ranks are not in order.
    let scattered = (rank as u64 * 7_919_773) % 1_000_000_000;
    let country = ["+919", "+447", "+155", "+861"][rank % 4];
    write!(out, "{country}{scattered:09}").expect("writing to a String cannot fail");
}

/// A moment of the three years, `fraction` of the way through, as a timestamp.
pub fn moment(fraction: f64) -> String {
    let mut text = String::new();
    write_time(FIRST_SECOND + (fraction * SECONDS as f64) as i64, &mut text);
    text
}

fn write_time(second: i64, out: &mut String) {
    let time = jiff::Timestamp::from_second(second).expect("a time of this century");
    write!(out, "{time}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::texts::PLANTED;
    use super::*;
    use domain::{Needle, Timestamp};

    fn all(rows: u64) -> Vec<Message> {
        let inbox = Inbox::new(rows);
        let message = |index| {
            let mut message = Message::default();
            inbox.old(index, &mut message);
            message
        };
        (0..rows).map(message).collect()
    }

    #[test]
    fn every_inbox_of_a_size_is_the_same_and_holds_the_planted_words_as_often_as_told() {
        let messages = all(20_000);
        assert_eq!(messages, all(20_000));
        for planted in PLANTED {
            let (needle, mut scratch) = (Needle::new(planted.word), String::new());
            let found =
                messages.iter().filter(|message| message.text().is_some_and(|text| needle.is_in(text, &mut scratch)));
            assert_eq!(found.count() as u64, (planted.count)(20_000), "{}", planted.word);
        }
        let ids: BTreeSet<_> = messages.iter().map(|message| &message.id).collect();
        assert_eq!(ids.len(), messages.len());
        assert!(messages.iter().all(|message| Timestamp::parse(&message.ts).is_ok()));
        let busiest = messages.iter().filter(|message| message.from == busiest_sender()).count();
        assert!((900..1100).contains(&busiest), "{busiest}");
        let count = |kind: fn(&Message) -> bool| messages.iter().filter(|message| kind(message)).count();
        assert!(count(|message| message.text().is_none()) > 300);
        assert!(count(|message| message.text() == Some("")) > 50);
        assert!(
            count(|message| message.text.contains("안녕")) > 10
                && count(|message| message.text.contains("заказ")) > 100
        );
    }

    #[test]
    fn senders_are_all_different() {
        let senders: BTreeSet<_> = (0..SENDERS).map(sender).collect();
        assert_eq!(senders.len(), SENDERS);
    }

    #[test]
    fn fresh_messages_are_new_and_hold_no_planted_word() {
        let inbox = Inbox::new(100);
        let mut message = Message::default();
        let mut ids: BTreeSet<_> = all(100).into_iter().map(|message| message.id).collect();
        for index in 0..2_000 {
            inbox.fresh(index, &mut message);
            assert!(ids.insert(message.id.clone()));
            assert!(PLANTED.iter().all(|planted| !message.text.to_lowercase().contains(planted.word)));
        }
    }
}
