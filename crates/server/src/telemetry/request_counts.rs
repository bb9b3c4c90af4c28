//! The number of responses and their durations, by path. The paths come from the route table.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::exposition::Exposition;
use super::histogram::Histogram;

/// The label of all paths without a row, and of requests that are too broken to have a path.
const UNKNOWN: &str = "unknown";
/// The statuses that Postroom uses.
const STATUSES: [u16; 18] = [200, 204, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503, 507];
/// The status under which all other statuses are counted.
const OTHER_STATUS: u16 = 500;
/// The method label: the methods of routes, and a value for all others.
const METHODS: [&str; 5] = ["GET", "POST", "HEAD", "OPTIONS", "other"];
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

const REQUEST_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The label of a request's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathLabel {
    /// A row of the route table, by its number.
    Row(usize),
    /// Any other path.
    Unknown,
}

/// The counts of all paths.
#[derive(Debug)]
pub(super) struct RequestCounts {
    /// The labels, each once, in the order of the table; the last one is `unknown`.
    paths: Vec<&'static str>,
    /// The index of each row's label in `paths`.
    path_of_row: Vec<usize>,
    requests: Vec<AtomicU64>,
    seconds: Vec<Histogram>,
}

impl RequestCounts {
    /// All zero. `labels` has one for each row; rows may share one.
    pub fn new(labels: impl Iterator<Item = &'static str>) -> Self {
        let (mut paths, mut path_of_row) = (Vec::new(), Vec::new());
        for label in labels {
            let known = paths.iter().position(|known| *known == label);
            path_of_row.push(known.unwrap_or(paths.len()));
            if known.is_none() {
                paths.push(label);
            }
        }
        paths.push(UNKNOWN);
        let requests = (0..paths.len() * STATUSES.len()).map(|_| AtomicU64::new(0)).collect();
        let series = paths.len() * METHODS.len() * CLASSES.len();
        let seconds = (0..series).map(|_| Histogram::new(REQUEST_SECONDS)).collect();
        Self { paths, path_of_row, requests, seconds }
    }

    fn path_at(&self, path: PathLabel) -> usize {
        let known = match path {
            PathLabel::Row(number) => self.path_of_row.get(number).copied(),
            PathLabel::Unknown => None,
        };
        known.unwrap_or(self.paths.len() - 1)
    }

    /// Counts a request.
    pub fn count(&self, path: PathLabel, status: u16) {
        let at = |wanted: u16| STATUSES.iter().position(|known| *known == wanted);
        let status_at = at(status).or_else(|| at(OTHER_STATUS)).unwrap_or_default();
        self.requests[self.path_at(path) * STATUSES.len() + status_at].fetch_add(1, Relaxed);
    }

    /// Counts the time of a request.
    pub fn time(&self, path: PathLabel, method: &str, status: u16, latency: Duration) {
        let method_at = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let class_at = match status {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        let series = (self.path_at(path) * METHODS.len() + method_at) * CLASSES.len() + class_at;
        self.seconds[series].observe(latency.as_secs_f64());
    }

    /// Writes the metric family of the counts.
    pub fn encode_counts(&self, out: &mut Exposition) {
        out.family("http_requests_total", "counter", "Responses, by path and status.");
        for (path_at, path) in self.paths.iter().enumerate() {
            for (status_at, status) in STATUSES.iter().enumerate() {
                let count = self.requests[path_at * STATUSES.len() + status_at].load(Relaxed);
                // A series begins at zero before its first event, so that rates see the first one too.
                if count > 0 || *status == 200 {
                    out.sample("http_requests_total", &[("path", path), ("status", &status.to_string())], count);
                }
            }
        }
    }

    /// Writes the metric family of the times.
    pub fn encode_times(&self, out: &mut Exposition) {
        out.family("http_request_duration_seconds", "histogram", "Response time, by path, method and class of status.");
        for (series, histogram) in self.seconds.iter().enumerate() {
            let (method_at, class_at) = (series / CLASSES.len() % METHODS.len(), series % CLASSES.len());
            let path = self.paths[series / (CLASSES.len() * METHODS.len())];
            let labels = [("path", path), ("method", METHODS[method_at]), ("status", CLASSES[class_at])];
            if histogram.cumulative().0.last().is_some_and(|(_, count)| *count > 0) {
                out.histogram("http_request_duration_seconds", &labels, histogram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_share_a_label_share_their_series_and_what_is_unknown_has_its_own() {
        let counts = RequestCounts::new(["/a", "/b", "/a"].into_iter());
        for path in [PathLabel::Row(0), PathLabel::Row(2), PathLabel::Row(1), PathLabel::Unknown, PathLabel::Row(7)] {
            counts.count(path, 200);
        }
        counts.count(PathLabel::Row(1), 299);
        let mut out = Exposition::new();
        counts.encode_counts(&mut out);
        let text = out.into_text();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                r#"http_requests_total{path="/a",status="200"} 2"#,
                r#"http_requests_total{path="/b",status="200"} 1"#,
                r#"http_requests_total{path="/b",status="500"} 1"#,
                r#"http_requests_total{path="unknown",status="200"} 2"#,
            ]
        );
    }
}
