//! Charts for `docs/`: lines over a logarithmic or linear scale, as SVG that reads on light and on dark paper.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// A chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chart {
    /// Durable puts a second against concurrent writers.
    Puts,
    /// Resident memory against cached objects.
    Memory,
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// A line through `points`, which are ordered by their first coordinate.
    pub(crate) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
        }
    }
}

/// The size of a chart, in the units of SVG.
const SIZE: (f64, f64) = (640.0, 340.0);
/// Left, right, top and bottom of what the lines are drawn in.
const FRAME: (f64, f64, f64, f64) = (72.0, 500.0, 40.0, 290.0);
/// Colours that differ on light and dark paper, also for those who see few colours (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
/// The grey of text and axes: contrast of 4.5 with white and with black.
const INK: &str = "#767676";

impl Chart {
    fn file(self) -> &'static str {
        match self {
            Self::Puts => "storage-puts.svg",
            Self::Memory => "storage-memory.svg",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Puts => "Durable puts of 4 KB a second",
            Self::Memory => "Resident memory, MB",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::Puts => "concurrent writers, one put at a time each",
            Self::Memory => "cached pods of 4.7 KB",
        }
    }

    /// Whether each step to the right doubles.
    fn logarithmic(self) -> bool {
        self == Self::Puts
    }

    /// Writes the chart into `folder`, unless there is no line to show.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn write(self, folder: &Path, lines: &[&Line]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = folder.join(self.file());
        std::fs::write(&path, self.svg(lines)).with_context(|| path.display().to_string())
    }

    fn svg(self, lines: &[&Line]) -> String {
        let (left, right, top, bottom) = FRAME;
        let points = || lines.iter().flat_map(|line| &line.points);
        let most = points().map(|point| point.1).fold(0.0, f64::max);
        let step = step(most / 5.0);
        let height = (most / step).ceil() * step;
        let scale = |x: f64| if self.logarithmic() { x.log2() } else { x };
        let first = points().map(|point| scale(point.0)).fold(f64::INFINITY, f64::min);
        let last = points().map(|point| scale(point.0)).fold(f64::NEG_INFINITY, f64::max);
        let across = |x: f64| left + (scale(x) - first) / (last - first).max(1.0) * (right - left);
        let up = |y: f64| bottom - y / height * (bottom - top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"13\" \
             fill=\"{INK}\">\n<title>{}</title>\n<text x=\"{left}\" y=\"22\" font-size=\"15\">{}</text>\n",
            SIZE.0,
            SIZE.1,
            self.title(),
            self.title()
        );
        for number in 0.. {
            let value = f64::from(number) * step;
            if value > height * 1.001 {
                break;
            }
            let y = up(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {y:.1}H{right}\" stroke=\"{INK}\" stroke-opacity=\"0.3\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                left - 8.0,
                y + 4.0
            );
        }
        for (x, _) in lines
            .iter()
            .max_by_key(|line| line.points.len())
            .map_or(&[][..], |line| &line.points)
        {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x}</text>",
                across(*x),
                bottom + 20.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, right),
            bottom + 42.0,
            self.axis()
        );
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let place = |point: &(f64, f64)| format!("{:.1} {:.1}", across(point.0), up(point.1));
            let path: Vec<_> = line.points.iter().map(place).collect();
            let _ = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join("L")
            );
            for point in &line.points {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    across(point.0),
                    up(point.1)
                );
            }
            if let Some(end) = line.points.last() {
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                    across(end.0) + 10.0,
                    up(end.1) + 4.0,
                    line.name
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not less than `at_least`.
fn step(at_least: f64) -> f64 {
    let power = 10_f64.powf(at_least.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= at_least * 0.999)
        .unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_lines_and_a_readable_scale() {
        let line = Line::new("embedded", vec![(1.0, 100.0), (64.0, 9_000.0)]);
        let svg = Chart::Puts.svg(&[&line]);
        assert!(
            svg.contains(">embedded<") && svg.contains(">2000<") && svg.contains(">10000<"),
            "{svg}"
        );
        assert!(
            svg.contains("M72.0 287.5L500.0 65.0"),
            "the first and the last point: {svg}"
        );
        assert_eq!([step(0.13), step(1.0), step(1_800.0)], [0.2, 1.0, 2_000.0]);
    }
}
