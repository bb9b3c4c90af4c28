//! The query string of `/messages`. Every parameter is optional, and the last of a repeated one counts.
//! Unknown parameters are ignored. All errors are reported at once.

use std::borrow::Cow;

use serde_json::Value;

use super::cursor;
use domain::event::EventRequest;
use domain::invalid::Place;
use domain::query::{LIMIT_DEFAULT, LIMIT_MAX, SEARCH_BYTES_MAX};
use domain::status::StatusRecord;
use domain::{FieldError, Filter, Invalid, Kind, Needle, Order, PageRequest, Position, Room, Start, State, Timestamp};

/// Parses a query string (without the question mark).
pub fn page_request(query: &str) -> Result<PageRequest, Vec<FieldError>> {
    let given = Given::read(query);
    let limit =
        given.limit.as_deref().map_or(Ok(i64::from(LIMIT_DEFAULT)), |text| integer(text, 1, i64::from(LIMIT_MAX)));
    let offset = given.offset.as_deref().map_or(Ok(0), |text| integer(text, 0, i64::MAX));
    let since = given.since.as_deref().filter(|text| !text.is_empty()).map(Timestamp::at_or_after).transpose();
    let search = given.q.as_deref().filter(|text| !text.is_empty()).map(needle).transpose();
    let order = given.order.as_deref().map_or(Ok(Order::Time), order);
    let start = match (&given.cursor, &offset, &order) {
        (Some(_), _, _) if given.offset.is_some() => {
            Err(Invalid::Rule("a page begins at an offset or at a cursor, not both"))
        }
        (Some(cursor), _, Ok(order)) if !cursor.is_empty() => cursor::decode(cursor, *order).map(Start::Behind),
        (_, Ok(offset), _) => Ok(Start::Offset(*offset as u64)),
        (_, Err(_), _) => Ok(Start::Offset(0)),
    };
    let bounded = given.total.as_deref().map_or(Ok(false), bounded);
    let until = Given::text(&given.until).map(Timestamp::at_or_after).transpose();
    let kind = Given::text(&given.kind).map(kind).transpose();
    match (limit, offset, (since, until), search, (order, kind), start, bounded) {
        (Ok(limit), Ok(_), (Ok(since), Ok(until)), Ok(search), (Ok(order), Ok(kind)), Ok(start), Ok(bounded_total)) => {
            Ok(PageRequest {
                filter: Filter {
                    from: Given::text(&given.from).map(sender),
                    since,
                    search,
                    to: Given::text(&given.to).map(sender),
                    until,
                    source: Given::text(&given.source).map(str::to_owned),
                    kind,
                },
                order,
                limit: limit as u32,
                start,
                bounded_total,
                room: Room::default(),
            })
        }
        (limit, offset, (since, until), search, (order, kind), start, bounded) => {
            let errors = [
                ("limit", limit.err(), given.limit),
                ("offset", offset.err(), given.offset),
                ("since", since.err(), given.since),
                ("until", until.err(), given.until),
                ("q", search.err(), given.q),
                ("kind", kind.err(), given.kind),
                ("order", order.err(), given.order),
                ("cursor", start.err(), given.cursor),
                ("total", bounded.err(), given.total),
            ];
            Err(refusals(errors))
        }
    }
}

/// The parameters that break their rules, each with its value.
fn refusals<const COUNT: usize>(errors: [(&'static str, Option<Invalid>, Option<String>); COUNT]) -> Vec<FieldError> {
    let refusal = |(name, invalid, input): (_, Option<Invalid>, Option<String>)| {
        let input = Value::String(input.unwrap_or_default());
        Some(FieldError { place: Place::QueryParameter(name), invalid: invalid?, input })
    };
    errors.into_iter().filter_map(refusal).collect()
}

/// The received parameters, decoded.
#[derive(Default)]
struct Given {
    limit: Option<String>,
    offset: Option<String>,
    from: Option<String>,
    since: Option<String>,
    q: Option<String>,
    order: Option<String>,
    cursor: Option<String>,
    total: Option<String>,
    to: Option<String>,
    until: Option<String>,
    source: Option<String>,
    kind: Option<String>,
}

impl Given {
    /// The parameters of a query string; the last of a repeated one counts.
    fn read(query: &str) -> Self {
        let mut given = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "limit" => &mut given.limit,
                "offset" => &mut given.offset,
                "from" => &mut given.from,
                "since" => &mut given.since,
                "q" => &mut given.q,
                "order" => &mut given.order,
                "cursor" => &mut given.cursor,
                "total" => &mut given.total,
                "to" => &mut given.to,
                "until" => &mut given.until,
                "source" => &mut given.source,
                "kind" => &mut given.kind,
                _ => continue,
            };
            *place = Some(value.into_owned());
        }
        given
    }

    /// The non-empty value.
    fn text(value: &Option<String>) -> Option<&str> {
        value.as_deref().filter(|text| !text.is_empty())
    }
}

fn kind(text: &str) -> Result<Kind, Invalid> {
    Kind::named(text)
        .ok_or(Invalid::Rule("kind must be text, image, video, audio, document, or another kind listed in API.md"))
}

fn order(text: &str) -> Result<Order, Invalid> {
    match text {
        "ts" | "" => Ok(Order::Time),
        "arrival" => Ok(Order::Arrival),
        _ => Err(Invalid::Rule("order must be ts or arrival")),
    }
}

/// Whether a lower bound of the total is enough.
fn bounded(text: &str) -> Result<bool, Invalid> {
    match text {
        "exact" | "" => Ok(false),
        "bounded" => Ok(true),
        _ => Err(Invalid::Rule("total must be exact or bounded")),
    }
}

/// The page after `position`, as a reference relative to this page (`path`): a proxy may use any name and
/// any path prefix. None unless the query has `cursor` or `order`, so that nothing changes for clients that
/// use neither.
pub fn next_link(path: &str, query: &str, position: &Position) -> Option<String> {
    let given: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    if !given.iter().any(|(name, _)| matches!(name.as_ref(), "cursor" | "order")) {
        return None;
    }
    let start = if path.ends_with('/') { "../messages?" } else { "messages?" };
    let mut next = form_urlencoded::Serializer::for_suffix(start.to_owned(), start.len());
    next.extend_pairs(given.iter().filter(|(name, _)| !matches!(name.as_ref(), "cursor" | "offset")));
    Some(next.append_pair("cursor", &cursor::encode(position)).finish())
}

/// A whole number, optionally with a sign and white space around it. A number beyond 64 bits becomes the
/// greatest or least one.
fn integer(text: &str, least: i64, most: i64) -> Result<i64, Invalid> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Invalid::NotAnInteger);
    }
    let beyond = if trimmed.starts_with('-') { i64::MIN } else { i64::MAX };
    match trimmed.parse().unwrap_or(beyond) {
        number if number < least => Err(Invalid::Below(least)),
        number if number > most => Err(Invalid::Above(most)),
        number => Ok(number),
    }
}

/// An unescaped `+` arrives as a space. No sender begins with a space, and people type `?from=+4479…`.
fn sender(text: &str) -> String {
    match text.strip_prefix(' ') {
        Some(rest) => format!("+{rest}"),
        None => text.to_owned(),
    }
}

/// Parses the query string of `/events`.
pub fn event_request(query: &str) -> Result<EventRequest, Vec<FieldError>> {
    let last = |name: &str| last_value(query, name);
    let (limit, before) = (last("limit"), last("before"));
    let wanted = limit.as_deref().map_or(Ok(i64::from(LIMIT_DEFAULT)), |text| integer(text, 1, i64::from(LIMIT_MAX)));
    let below = before.as_deref().map(|text| integer(text, 0, i64::MAX)).transpose();
    match (wanted, below) {
        (Ok(limit), Ok(before)) => {
            Ok(EventRequest { source: last("source"), kind: last("kind"), limit: limit as u32, before })
        }
        (wanted, below) => {
            let errors = [("limit", wanted.err(), limit), ("before", below.err(), before)];
            Err(refusals(errors))
        }
    }
}

/// Selects a record of a message's statuses.
#[derive(Debug, PartialEq, Eq)]
pub struct RecordRequest {
    state: Option<State>,
    recipient: Option<String>,
}

impl RecordRequest {
    /// Whether a record matches.
    pub fn fits(&self, record: &StatusRecord) -> bool {
        self.state.is_none_or(|state| record.state == state)
            && self.recipient.as_ref().is_none_or(|recipient| record.recipient == *recipient)
    }
}

/// Parses the query string of a message's statuses: the record whose raw body is requested, if any.
pub fn record_request(query: &str) -> Result<Option<RecordRequest>, Vec<FieldError>> {
    let given = last_value(query, "status");
    let state = given.as_deref().map(State::named);
    if state == Some(None) {
        let rule = Invalid::Rule("status must be queued, sent, delivered, read, played or failed");
        let input = Value::String(given.unwrap_or_default());
        return Err(vec![FieldError { place: Place::QueryParameter("status"), invalid: rule, input }]);
    }
    let recipient = last_value(query, "recipient").as_deref().map(sender);
    Ok(flag(query, "raw").then_some(RecordRequest { state: state.flatten(), recipient }))
}

/// Parses the query string of `/stats`: whether sent messages are counted by status.
pub fn by_status(query: &str) -> Result<bool, Vec<FieldError>> {
    match last_value(query, "by") {
        None => Ok(false),
        Some(by) if by == "status" => Ok(true),
        Some(by) => {
            let (place, invalid) = (Place::QueryParameter("by"), Invalid::Rule("by must be status"));
            Err(vec![FieldError { place, invalid, input: Value::String(by) }])
        }
    }
}

/// Whether a parameter is `1` or `true`; the last of a repeated one counts.
pub fn flag(query: &str, name: &str) -> bool {
    last_value(query, name).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}

/// The value of a parameter, the last of a repeated one; an empty one counts as absent.
pub fn last_value(query: &str, name: &str) -> Option<String> {
    let values = form_urlencoded::parse(query.as_bytes()).filter(|(own, _)| own == name);
    values.last().map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}

/// The id in the path of a message, percent-encoded (RFC 3986, §2.1) because a key may contain any character.
pub fn path_id(id: &str) -> Option<String> {
    percent_encoding::percent_decode_str(id).decode_utf8().ok().map(Cow::into_owned).filter(|id| !id.is_empty())
}

/// The number in a path.
pub fn path_number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn needle(text: &str) -> Result<Needle, Invalid> {
    if text.len() > SEARCH_BYTES_MAX {
        return Err(Invalid::TooLong { most: SEARCH_BYTES_MAX, unit: "bytes" });
    }
    Ok(Needle::new(text))
}

/// Passes any bytes to the parser, like a fuzz target: accepted values satisfy the invariants of the types.
pub fn fuzz_page_request(data: &[u8]) {
    match page_request(&String::from_utf8_lossy(data)) {
        Ok(request) => {
            assert!((1..=LIMIT_MAX).contains(&request.limit));
            assert!(!matches!(request.start, Start::Offset(offset) if offset > i64::MAX as u64));
            assert!(request.filter.from.is_none_or(|from| !from.is_empty() && !from.starts_with(' ')));
        }
        Err(errors) => assert!(!errors.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(query: &str) -> Vec<(Place, Invalid)> {
        page_request(query).unwrap_err().into_iter().map(|error| (error.place, error.invalid)).collect()
    }

    #[test]
    fn defaults_and_bounds() {
        let request = page_request("").unwrap();
        assert_eq!((request.limit, request.start), (50, Start::Offset(0)));
        let request = page_request("limit=1&limit=100&offset=%2B7&unknown=x&limit").unwrap_err();
        assert_eq!(request[0].invalid, Invalid::NotAnInteger, "an empty one counts too");
        let request = page_request("limit=1&limit=100&offset=%2B7&x=y").unwrap();
        assert_eq!((request.limit, request.start), (100, Start::Offset(7)));
        for text in ["abc", "", "1.5", "0x1", "1e2", "--1", "१", "1 2"] {
            assert_eq!(invalid(&format!("limit={text}")), [(Place::QueryParameter("limit"), Invalid::NotAnInteger)]);
        }
        assert_eq!(
            invalid("limit=0&offset=-1"),
            [(Place::QueryParameter("limit"), Invalid::Below(1)), (Place::QueryParameter("offset"), Invalid::Below(0))]
        );
        assert_eq!(invalid("limit=101"), [(Place::QueryParameter("limit"), Invalid::Above(100))]);
        let beyond = format!("offset={}", "9".repeat(400));
        assert_eq!(page_request(&beyond).unwrap().start, Start::Offset(i64::MAX as u64));
        assert_eq!(invalid(&format!("limit=-{}", "9".repeat(400))).len(), 1);
    }

    #[test]
    fn filters() {
        let filter = |query: &str| page_request(query).unwrap().filter;
        assert_eq!(filter("from=+919876543210").from.as_deref(), Some("+919876543210"));
        assert_eq!(filter("from=%2B91").from.as_deref(), Some("+91"));
        assert_eq!(filter("from=91").from.as_deref(), Some("91"));
        assert_eq!(filter("q=100%25+%C3%89").search.unwrap().folded(), "100% é");
        assert_eq!(filter("since=2025-01-15T09:30:00Z").since.unwrap().as_str(), "2025-01-15T09:30:00Z");
        let empty = filter("from=&since=&q=");
        assert!(empty.from.is_none() && empty.since.is_none() && empty.search.is_none());
        assert!(matches!(invalid("since=yesterday")[0].1, Invalid::Rule(_)));
        assert!(matches!(invalid(&format!("q={}", "a".repeat(1025)))[0].1, Invalid::TooLong { most: 1024, .. }));
        assert!(page_request("q=%ff%fe").is_ok(), "broken UTF-8 becomes U+FFFD");
        let more = filter("to=+1&until=2025-01-15T09:30:00Z&source=meta&kind=image");
        assert_eq!(
            (more.to.as_deref(), more.source.as_deref(), more.kind),
            (Some("+1"), Some("meta"), Some(Kind::Image))
        );
        assert!(more.until.is_some() && more.asks_details() && !filter("to=&until=&source=&kind=").asks_details());
        assert_eq!(invalid("until=now&kind=Image").len(), 2);
    }

    #[test]
    fn ids_in_paths_are_decoded() {
        assert_eq!(path_id("a%2Fb%3D").as_deref(), Some("a/b="));
        assert_eq!(path_id("whatsapp:1:wamid.A/B=").as_deref(), Some("whatsapp:1:wamid.A/B="));
        assert_eq!(path_id("%E2%98%83").as_deref(), Some("☃"));
        assert_eq!((path_id(""), path_id("%ff")), (None, None));
    }

    #[test]
    fn a_time_may_have_a_fraction_and_an_offset() {
        let filter = |query: &str| page_request(query).unwrap().filter;
        for time in ["2025-01-15T09:30:00.000Z", "2025-01-15T11:30:00+02:00", "2025-01-15T11:30:00%2B02:00"] {
            let range = filter(&format!("since={time}&until={time}"));
            for end in [range.since, range.until] {
                assert_eq!(end.unwrap().as_str(), "2025-01-15T09:30:00Z", "{time}");
            }
        }
        assert_eq!(filter("until=2025-01-15T09:30:00.5Z").until.unwrap().as_str(), "2025-01-15T09:30:01Z");
    }

    #[test]
    fn a_record_is_asked_for_by_state_and_recipient() {
        assert_eq!(record_request("status=read"), Ok(None));
        let wanted = record_request("raw=1&status=read&recipient=+1650").unwrap().unwrap();
        assert_eq!((wanted.state, wanted.recipient.as_deref()), (Some(State::Read), Some("+1650")));
        assert_eq!(record_request("raw=1&status=Read").unwrap_err()[0].place, Place::QueryParameter("status"));
        assert_eq!((path_number("17"), path_number("1x")), (Some(17), None));
        assert_eq!(path_number(&"9".repeat(30)), None);
    }

    #[test]
    fn events_are_asked_for_by_limit_and_number() {
        let request = event_request("limit=7&before=9&source=a&kind=b&source=").unwrap();
        assert_eq!((request.limit, request.before, request.source), (7, Some(9), None));
        assert_eq!(event_request("").unwrap().limit, 50);
        assert_eq!(event_request("limit=0&before=-1").unwrap_err().len(), 2);
        assert!(flag("raw=0&raw=1", "raw") && !flag("raw=1&raw=0", "raw") && !flag("", "raw"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(query in "(((limit|offset|from|since|q|order|cursor|total)=)?[^\n]{0,20}&?){0,6}") {
            fuzz_page_request(query.as_bytes());
        }
    }
}
