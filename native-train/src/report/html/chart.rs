//! Small charts as SVG. Their coordinates are the pixels of a narrow phone, so that text stays
//! readable there; wider columns scale them up.

use std::fmt::Write;

use super::markup::escape;
use crate::report::format::short;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 34.0;

/// Points of a histogram's outline; beyond this, bars are narrower than a pixel.
const MOST_STEPS: usize = 320;

/// Numbers beyond this, whose differences may be infinite, are left out of a curve.
const HUGE: f64 = 1e300;

/// Less than this cannot be cut into the parts of an axis.
const TINY: f64 = 1e-300;

/// One bar of [`bars`].
pub(super) struct Bar {
    /// What it stands for.
    pub(super) label: String,
    /// Its length, from 0 to 1.
    pub(super) share: f64,
    /// A mark across it, from 0 to 1.
    pub(super) mark: Option<f64>,
    /// The figure.
    pub(super) figure: String,
}

/// Horizontal bars as a table, so that labels and figures are text for every reader.
pub(super) fn bars(bars: &[Bar]) -> String {
    let mut table = String::from("<table class=\"bars\">");
    for Bar { label, share, mark, figure } in bars {
        let width = 100.0 * share.clamp(0.0, 1.0);
        let mark = mark.map_or(String::new(), |mark| {
            format!("<u style=\"left:{:.2}%\"></u>", 100.0 * mark.clamp(0.0, 1.0))
        });
        let _ = write!(
            table,
            "<tr><th scope=\"row\">{}</th><td><span class=\"bar\"><i style=\"width:{width:.2}%\">\
             </i>{mark}</span></td><td>{}</td></tr>",
            escape(label),
            escape(figure)
        );
    }
    table + "</table>"
}

/// Items of each codeword, from the most used to the least.
pub(super) fn usage(counts: &[u32], description: &str) -> String {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let most = f64::from(sorted.first().copied().unwrap_or(0)).max(1.0);
    let even = sorted.iter().map(|&count| f64::from(count)).sum::<f64>() / sorted.len() as f64;
    let mut chart = Chart::new((0.0, sorted.len() as f64), (0.0, most), description);
    chart.axes("codewords", "items");
    let steps = sorted.len().min(MOST_STEPS);
    let mut path = format!("M{:.1} {:.1}", chart.x(0.0), chart.y(0.0));
    for step in 0..steps {
        let (from, to) = (step * sorted.len() / steps, (step + 1) * sorted.len() / steps);
        let y = chart.y(f64::from(sorted[from]));
        let _ = write!(path, "L{:.1} {y:.1}", chart.x(from as f64));
        let _ = write!(path, "H{:.1}", chart.x(to as f64));
    }
    let _ = write!(path, "V{:.1}Z", chart.y(0.0));
    chart.path("area", &path);
    let y = chart.y(even);
    chart.path("even", &format!("M{LEFT} {y:.1}H{:.1}", WIDTH - RIGHT));
    chart.finish()
}

/// A curve over the steps of a log.
pub(super) fn curve(points: &[(f64, f64)], axis: &str, description: &str) -> String {
    let finite = points.iter().filter(|(x, y)| x.abs() < HUGE && y.abs() < HUGE);
    let extent = |of: fn(&(f64, f64)) -> f64| {
        let values = finite.clone().map(of);
        let (low, high) =
            (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
        // From zero, so that a curve's fall is not made larger than it is.
        (low.min(0.0), high)
    };
    let mut chart = Chart::new(extent(|point| point.0), extent(|point| point.1), description);
    chart.axes(axis, "");
    let mut path = String::new();
    for (x, y) in finite {
        let command = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", chart.x(*x), chart.y(*y));
    }
    chart.path("curve", &path);
    chart.finish()
}

/// A plot area with its scales.
struct Chart {
    x: (f64, f64),
    y: (f64, f64),
    svg: String,
}

impl Chart {
    fn new(x: (f64, f64), y: (f64, f64), description: &str) -> Self {
        let svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(description)
        );
        let widened =
            |(low, high): (f64, f64)| (low, if high - low > TINY { high } else { low + 1.0 });
        let (low, high) = widened(y);
        // The axis ends at a tick at or above the largest value.
        let step = tick_step(high - low, 5);
        Self { x: widened(x), y: ((low / step).floor() * step, (high / step).ceil() * step), svg }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn path(&mut self, class: &str, path: &str) {
        let _ = write!(self.svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    fn axes(&mut self, x_name: &str, y_name: &str) {
        for tick in ticks(self.y, 5) {
            let y = self.y(tick);
            self.path("grid", &format!("M{LEFT} {y:.1}H{:.1}", WIDTH - RIGHT));
            let (x, y) = (LEFT - 6.0, y + 4.0);
            let _ = write!(
                self.svg,
                "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
                short(tick)
            );
        }
        let below = HEIGHT - BOTTOM + 14.0;
        for tick in ticks(self.x, 5) {
            let x = self.x(tick);
            let anchor = if x > WIDTH - RIGHT - 12.0 { "end" } else { "middle" };
            let _ = write!(
                self.svg,
                "<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"{anchor}\">{}</text>",
                short(tick)
            );
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let bottom = HEIGHT - 5.0;
        let _ = write!(
            self.svg,
            "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>",
            escape(x_name)
        );
        if !y_name.is_empty() {
            let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
            let _ = write!(
                self.svg,
                "<text x=\"11\" y=\"{middle}\" text-anchor=\"middle\" \
                 transform=\"rotate(-90 11 {middle})\">{}</text>",
                escape(y_name)
            );
        }
    }

    fn finish(self) -> String {
        self.svg + "</svg>"
    }
}

/// A step of 1, 2 or 5 times a power of ten that cuts `span` into about `count` parts.
fn tick_step(span: f64, count: usize) -> f64 {
    let rough = span / count as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let step = tick_step(high - low, count);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(ticks((0.0, 256.0), 5), [0.0, 100.0, 200.0]);
        assert_eq!(ticks((0.0, 149.0), 5), [0.0, 50.0, 100.0]);
        assert_eq!(ticks((0.0, 1.0), 4), [0.0, 0.5, 1.0]);
        assert_eq!(ticks((-1.0, 1.0), 4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn the_largest_value_lies_within_the_plot() {
        let chart = Chart::new((0.0, 10.0), (0.0, 217.0), "");
        assert_eq!(chart.y.1, 250.0);
        assert!(chart.y(217.0) > TOP && chart.y(0.0) == HEIGHT - BOTTOM);
        assert_eq!((chart.x(0.0), chart.x(10.0)), (LEFT, WIDTH - RIGHT));
    }

    #[test]
    fn degenerate_data_gives_finite_coordinates() {
        for svg in [
            usage(&[0, 0], "d"),
            usage(&[3], "d"),
            curve(&[(0.0, 0.0), (1.0, 0.0)], "epoch", "d"),
            curve(&[(0.0, f64::NAN), (1.0, 2.0)], "epoch", "d"),
            curve(&[(0.0, -3.0), (1.0, -2.0)], "epoch", "d"),
            curve(&[(0.0, -1e308), (5e-324, 1e308)], "epoch", "d"),
            curve(&[(0.0, 0.0), (5e-324, 5e-324)], "epoch", "d"),
        ] {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn bars_end_where_they_should_and_carry_escaped_text() {
        let bar = Bar { label: "<b>".into(), share: 1.7, mark: Some(0.25), figure: "x".into() };
        let table = bars(&[bar]);
        assert!(table.contains("width:100.00%") && table.contains("left:25.00%"), "{table}");
        assert!(table.contains("&lt;b&gt;") && !table.contains("<b>"));
    }
}
