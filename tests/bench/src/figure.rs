//! What a benchmark yields.

use serde::Serialize;

/// A figure: what several runs of one benchmark gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// Its name. One with a bound has the name of its item in `tests/show/storage.tsv`.
    pub(crate) name: &'static str,
    /// What was measured, for people.
    pub(crate) what: String,
    /// What the samples count.
    pub(crate) unit: Unit,
    /// One value per run, in the order of the runs.
    pub(crate) samples: Vec<f64>,
    /// What the median has to keep, if anything.
    pub(crate) bound: Option<Bound>,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Unit {
    /// Things in a second.
    PerSecond(&'static str),
    /// Bytes in a second.
    BytesPerSecond,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// One quantity over another of the same kind.
    Ratio,
}

/// What the median of a figure has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Bound {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

impl Figure {
    /// A figure without a bound.
    pub(crate) fn new(name: &'static str, what: impl Into<String>, unit: Unit, samples: Vec<f64>) -> Self {
        Self {
            name,
            what: what.into(),
            unit,
            samples,
            bound: None,
        }
    }

    /// With a bound.
    pub(crate) fn bound(mut self, bound: Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        median(&self.samples)
    }

    /// Whether the median keeps the bound; a figure without one does.
    pub(crate) fn within(&self) -> bool {
        match self.bound {
            None => true,
            Some(Bound::AtLeast(least)) => self.median() >= least,
            Some(Bound::AtMost(most)) => self.median() <= most,
        }
    }

    /// Median, and smallest to largest sample, such as `12,300 puts/s (11,900–12,800)`.
    pub(crate) fn text(&self) -> String {
        let text = self.unit.text(self.median());
        if self.samples.len() < 2 {
            return text;
        }
        let least = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{text} ({}–{})", self.unit.number(least), self.unit.number(most))
    }

    /// The bound in words, empty where there is none.
    pub(crate) fn bound_text(&self) -> String {
        match self.bound {
            None => String::new(),
            Some(Bound::AtLeast(least)) => format!("≥ {}", self.unit.text(least)),
            Some(Bound::AtMost(most)) => format!("≤ {}", self.unit.text(most)),
        }
    }
}

impl Unit {
    /// A value with its unit.
    pub(crate) fn text(self, value: f64) -> String {
        let number = self.number(value);
        match self {
            Self::PerSecond(what) => format!("{number} {what}/s"),
            Self::BytesPerSecond => format!("{number}/s"),
            Self::Seconds | Self::Bytes => number,
            Self::Ratio => format!("{number}×"),
        }
    }

    fn number(self, value: f64) -> String {
        match self {
            Self::PerSecond(_) => grouped(value),
            Self::BytesPerSecond | Self::Bytes => scaled(value, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
            Self::Seconds => scaled(value, &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

/// Three significant digits, with the largest unit that leaves at least one before the point.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let smallest = units.last().copied().unwrap_or((1.0, ""));
    let (scale, unit) = units
        .iter()
        .copied()
        .find(|(scale, _)| value >= *scale)
        .unwrap_or(smallest);
    let value = value / scale;
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// An integer with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The middle of the samples, or the mean of the two in the middle; NaN where there is none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value that the share `quantile` of the sorted samples does not exceed (nearest rank); NaN where there is none.
pub(crate) fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small positive number"
    )]
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_its_median_and_spread() {
        let figure = Figure::new(
            "puts",
            "",
            Unit::PerSecond("puts"),
            vec![12_345.4, 9_000.0, 1_234_567.0],
        )
        .bound(Bound::AtLeast(10_000.0));
        assert_eq!(figure.text(), "12,345 puts/s (9,000–1,234,567)");
        assert_eq!(
            (figure.bound_text().as_str(), figure.within()),
            ("≥ 10,000 puts/s", true)
        );
        let seconds = Figure::new("open", "", Unit::Seconds, vec![0.002, 0.004]).bound(Bound::AtMost(0.002));
        assert_eq!(
            (seconds.text().as_str(), seconds.within()),
            ("3.00 ms (2.00 ms–4.00 ms)", false)
        );
        assert_eq!(Unit::BytesPerSecond.text(2.345e9), "2.35 GB/s");
        assert_eq!(Unit::Ratio.text(1.426), "1.43×");
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (
                percentile(&samples, 0.5),
                percentile(&samples, 0.99),
                percentile(&samples, 1.0)
            ),
            (50.0, 99.0, 100.0)
        );
        assert!(percentile(&[], 0.5).is_nan() && median(&[]).is_nan());
    }
}
