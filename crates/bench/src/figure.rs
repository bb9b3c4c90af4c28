//! A figure from several measurements.

use serde::Serialize;

/// The median of several measurements and their spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Half of the measurements are at or below this value.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
}

impl Figure {
    /// The figure of at least one measurement.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Self { median, least: values[0], most: values[values.len() - 1] }
    }

    /// `12.3 (11.9–14.0)`, with this many decimal places.
    pub fn show(&self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(Figure::of([3.0, 1.0, 2.0]), Figure { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Figure::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Figure::of([1.25]).show(1), "1.2 (1.2–1.2)");
    }
}
