//! Plots as SVG: lines with points and deviations, and bars. The paper's figures are dashed lines or
//! marks in grey.

use std::ops::Range;

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::table::{Figure, short};

/// Colours that also colour-blind readers tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// Marks of the lines, another for those whose colours come again.
const MARKS: [Mark; 3] = [Mark::Circle, Mark::Square, Mark::Triangle];
const PAPER: RGBColor = RGBColor(110, 110, 110);
const GRID: RGBColor = RGBColor(225, 225, 225);
const INK: RGBColor = RGBColor(40, 40, 40);

const WIDTH: u32 = 720;
const HEIGHT: u32 = 420;
const TEXT: i32 = 14;
/// Mean width of a letter of [`TEXT`]: nobody knows the reader's font.
const LETTER: i32 = 7;
/// Pixels that a figure behind a bar takes, and the gap before it.
const NUMBER: i32 = 5 * LETTER + 6;
/// Lines drawn over another for which that one is made wider.
const MOST_COVERED: usize = 3;
const TOP: i32 = 44;
const BOTTOM: i32 = 52;

#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// What it is called in the name of its file; empty for the only one of a study.
    pub(crate) name: String,
    /// What stands over it.
    pub(crate) title: String,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Lines with points.
    Lines { x: Axis, y: Axis, lines: Vec<Line> },
    /// Horizontal bars, groups of one or more.
    Bars {
        /// What their length is.
        x: Axis,
        /// A name a group.
        groups: Vec<String>,
        /// In each group a bar of each.
        bars: Vec<Bars>,
    },
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Axis {
    pub(crate) label: String,
    /// Whether equal distances are equal ratios.
    pub(crate) logarithmic: bool,
    /// Whether it begins at zero.
    pub(crate) from_zero: bool,
}

impl Axis {
    /// An axis from zero.
    pub(crate) fn from_zero(label: &str) -> Self {
        Self { label: label.into(), logarithmic: false, from_zero: true }
    }

    /// An axis over what there is.
    pub(crate) fn linear(label: &str) -> Self {
        Self { label: label.into(), logarithmic: false, from_zero: false }
    }

    /// An axis of ratios, which its label says.
    pub(crate) fn logarithmic(label: &str) -> Self {
        Self { label: format!("{label} (log scale)"), logarithmic: true, from_zero: false }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Figure)>,
    /// What stands at the points, from the first on.
    pub(crate) labels: Vec<String>,
    /// Whether the figures are the paper's.
    pub(crate) of_paper: bool,
}

impl Line {
    /// A line of our figures, whose points have no labels.
    pub(crate) fn new(name: impl Into<String>, points: Vec<(f64, Figure)>) -> Self {
        Self { name: name.into(), points, labels: Vec::new(), of_paper: false }
    }

    /// A line of the paper's figures.
    pub(crate) fn of_paper(name: impl Into<String>, points: Vec<(f64, Figure)>) -> Self {
        Self { of_paper: true, ..Self::new(name, points) }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Bars {
    pub(crate) name: String,
    /// The figure of each group.
    pub(crate) figures: Vec<Option<Figure>>,
    /// The paper's figure of each group.
    pub(crate) paper: Vec<Option<f64>>,
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Plot {
    /// The plot as SVG.
    ///
    /// # Errors
    /// A sentence, should the drawing library refuse something.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        let drawn = match &self.body {
            Body::Lines { x, y, lines } => draw_lines(&mut svg, &self.title, x, y, lines),
            Body::Bars { x, groups, bars } => draw_bars(&mut svg, &self.title, x, groups, bars),
        };
        drawn.map_err(|e| format!("the plot \"{}\" cannot be drawn: {e}", self.title))?;
        Ok(svg)
    }
}

/// A range of values as it is drawn.
struct Scale<'a> {
    axis: &'a Axis,
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl<'a> Scale<'a> {
    /// A scale that holds all of the values.
    fn new(axis: &'a Axis, values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let values = values.iter().copied().filter(|value| !axis.logarithmic || *value > 0.0);
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least <= most { (least, most) } else { (0.1, 1.0) };
        if axis.logarithmic {
            let ticks = decades(least / 1.15, most * 1.15);
            return Self { axis, range: (least / 1.15).log10()..(most * 1.15).log10(), ticks };
        }
        let least = if axis.from_zero { least.min(0.0) } else { least };
        let room = if most > least { 0.06 * (most - least) } else { most.abs().max(1e-6) * 0.1 };
        let low = if axis.from_zero && least == 0.0 { 0.0 } else { least - room };
        let range = low..most + room;
        Self { axis, ticks: nice(range.clone()), range }
    }

    fn at(&self, value: f64) -> f64 {
        if self.axis.logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    fn label(&self, tick: f64) -> String {
        let step = match self.ticks[..] {
            [first, second, ..] if !self.axis.logarithmic => second - first,
            _ => tick,
        };
        let decimals = (-(step.abs().log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize;
        let plain = format!("{tick:.decimals$}");
        match tick.abs() {
            x if x >= 1e6 => format!("{}M", tick / 1e6),
            x if x >= 1e4 => format!("{}k", tick / 1e3),
            _ => plain,
        }
    }
}

/// Round numbers in a range, four to eight.
fn nice(range: Range<f64>) -> Vec<f64> {
    let rough = (range.end - range.start) / 8.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(power);
    let (first, last) = ((range.start / step).ceil() as i64, (range.end / step).floor() as i64);
    (first..=last).map(|at| at as f64 * step).collect()
}

/// 1, 2 and 5 times powers of ten in a range; powers of ten alone where those are many.
fn decades(from: f64, to: f64) -> Vec<f64> {
    let powers = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let factors: &[f64] = if to / from > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    powers
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .filter(|tick| (from..=to).contains(tick))
        .collect()
}

fn text(size: i32, colour: RGBColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour).pos(Pos::new(horizontal, vertical))
}

/// How a point is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Circle,
    Square,
    Triangle,
}

/// What tells a line from the others.
struct Look {
    colour: RGBColor,
    mark: Mark,
    /// Dashed and hollow.
    of_paper: bool,
}

impl Look {
    /// Of one of our lines, counted from 0.
    fn of(at: usize) -> Self {
        let colour = COLOURS[at % COLOURS.len()];
        Self { colour, mark: MARKS[at / COLOURS.len() % MARKS.len()], of_paper: false }
    }

    /// Draws a path of pixels.
    fn stroke(&self, root: &Root<'_>, path: &[(i32, i32)], width: u32) -> Drawn {
        let style = self.colour.stroke_width(width);
        if self.of_paper {
            root.draw(&DashedPathElement::new(path.to_vec(), 5, 4, style))?;
        } else {
            root.draw(&PathElement::new(path.to_vec(), style))?;
        }
        Ok(())
    }

    /// Marks a pixel.
    fn mark(&self, root: &Root<'_>, at @ (x, y): (i32, i32), radius: i32) -> Drawn {
        let fill = if self.of_paper { WHITE } else { self.colour };
        for style in [fill.filled(), self.colour.stroke_width(1)] {
            match self.mark {
                Mark::Circle => root.draw(&Circle::new(at, radius, style))?,
                Mark::Square => {
                    let corners = [(x - radius, y - radius), (x + radius, y + radius)];
                    root.draw(&Rectangle::new(corners, style))?;
                }
                Mark::Triangle => root.draw(&TriangleMarker::new(at, radius + 2, style))?,
            }
        }
        Ok(())
    }
}

fn draw_lines(svg: &mut String, title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> Drawn {
    let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let xs = Scale::new(x, points().map(|point| point.0));
    let ys = Scale::new(
        y,
        points().flat_map(|(_, figure)| {
            let deviation = figure.deviation.unwrap_or(0.0);
            [figure.mean - deviation, figure.mean + deviation]
        }),
    );
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let right = legend_width(&names);
    let left = 24 + 12 + LETTER * longest(ys.ticks.iter().map(|&tick| ys.label(tick)));
    let frame =
        Frame { title, left, right, width: WIDTH as i32, height: HEIGHT as i32, bottom: BOTTOM };
    let mut chart = frame.chart(&root, xs.range.clone(), ys.range.clone())?;
    frame.axis_x(&root, &chart, &xs)?;
    frame.axis_y(&root, &chart, &ys)?;
    // In pixels, where lines that cannot be told apart are equal.
    let path = |line: &Line| -> Vec<(i32, i32)> {
        let place = |(x, y): &(f64, Figure)| chart.backend_coord(&(xs.at(*x), ys.at(y.mean)));
        line.points.iter().map(place).collect()
    };
    let paths: Vec<_> = lines.iter().map(path).collect();
    let mut ours = 0..;
    for (at, line) in lines.iter().enumerate() {
        let look = match line.of_paper {
            true => Look { colour: PAPER, mark: Mark::Circle, of_paper: true },
            false => Look::of(ours.next().unwrap_or(0)),
        };
        let (path, later) = (&paths[at], &paths[at + 1..]);
        // What other lines are drawn over is seen at both of their sides.
        let covers = |segment: &[(i32, i32)]| {
            later.iter().filter(|path| path.windows(2).any(|own| own == segment)).count()
        };
        let covered = path.windows(2).map(covers).max().unwrap_or(0).min(MOST_COVERED);
        look.stroke(&root, path, 2 + 4 * covered as u32)?;
        for (point, ((x, figure), &place)) in line.points.iter().zip(path).enumerate() {
            if let Some(deviation) = figure.deviation {
                chart.draw_series([ErrorBar::new_vertical(
                    xs.at(*x),
                    ys.at(figure.mean - deviation),
                    ys.at(figure.mean),
                    ys.at(figure.mean + deviation),
                    look.colour.stroke_width(1),
                    8,
                )])?;
            }
            let covered = later.iter().filter(|path| path.contains(&place)).count();
            let radius = 4 + 3 * covered.min(MOST_COVERED) as i32;
            look.mark(&root, place, radius)?;
            if let Some(label) = line.labels.get(point) {
                let style = text(TEXT - 2, INK, HPos::Center, VPos::Bottom);
                root.draw(&Text::new(label.clone(), (place.0, place.1 - radius - 4), style))?;
            }
        }
        let row = frame.legend_row(at);
        look.stroke(&root, &[row, (row.0 + 22, row.1)], 2)?;
        look.mark(&root, (row.0 + 11, row.1), 4)?;
        root.draw(&Text::new(
            line.name.clone(),
            (row.0 + 30, row.1),
            text(TEXT, INK, HPos::Left, VPos::Center),
        ))?;
    }
    root.present()?;
    Ok(())
}

fn draw_bars(svg: &mut String, title: &str, x: &Axis, groups: &[String], bars: &[Bars]) -> Drawn {
    let group = 12 + 16 * bars.len().max(1) as i32;
    let bottom = if x.label.is_empty() { BOTTOM - 22 } else { BOTTOM };
    let height = TOP + bottom + group * groups.len().max(1) as i32;
    let root = SVGBackend::with_string(svg, (WIDTH, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut xs = Scale::new(
        x,
        bars.iter().flat_map(|bars| {
            let ours = bars.figures.iter().flatten();
            let most = ours.map(|figure| figure.mean + figure.deviation.unwrap_or(0.0));
            most.chain(bars.paper.iter().flatten().copied())
        }),
    );
    // Room for the figure behind the longest bar.
    xs.range.end += 0.06 * (xs.range.end - xs.range.start);
    let has_paper = bars.iter().any(|bars| bars.paper.iter().any(Option::is_some));
    let mut names: Vec<&str> = bars.iter().map(|bars| bars.name.as_str()).collect();
    names.extend(has_paper.then_some("paper"));
    let left = 16 + LETTER * longest(groups.iter().cloned());
    let right = legend_width(&names);
    let frame = Frame { title, left, right, width: WIDTH as i32, height, bottom };
    // A group a unit, the first at the top.
    let mut chart = frame.chart(&root, xs.range.clone(), 0.0..groups.len().max(1) as f64)?;
    frame.axis_x(&root, &chart, &xs)?;
    let unit = f64::from(group);
    for (at, name) in groups.iter().enumerate() {
        let middle = groups.len() as f64 - at as f64 - 0.5;
        let (x, y) = chart.backend_coord(&(xs.range.start, middle));
        let style = text(TEXT, INK, HPos::Right, VPos::Center);
        root.draw(&Text::new(name.clone(), (x - 8, y), style))?;
        for (row, bars) in bars.iter().enumerate() {
            let colour = COLOURS[row % COLOURS.len()];
            let top = groups.len() as f64 - at as f64 - (6.0 + 16.0 * row as f64) / unit;
            let bottom = top - 16.0 / unit;
            if let Some(figure) = bars.figures[at] {
                let end = xs.at(figure.mean);
                let zero = xs.range.start.max(0.0);
                chart.draw_series([Rectangle::new(
                    [(zero, top - 1.5 / unit), (end, bottom + 1.5 / unit)],
                    colour.filled(),
                )])?;
                if let Some(deviation) = figure.deviation {
                    chart.draw_series([ErrorBar::new_horizontal(
                        (top + bottom) / 2.0,
                        figure.mean - deviation,
                        figure.mean,
                        figure.mean + deviation,
                        INK.stroke_width(1),
                        6,
                    )])?;
                }
            }
            let ends = bars.figures[at].map(|f| f.mean + f.deviation.unwrap_or(0.0));
            if let (Some(figure), Some(end)) = (bars.figures[at], ends) {
                let place = |x| chart.backend_coord(&(xs.at(x), (top + bottom) / 2.0));
                let (x, y) = place(end);
                // A mark far from the bar is no reason for the number to leave it.
                let mark = bars.paper[at].map(|paper| place(paper).0);
                let x = mark.filter(|mark| (x..x + NUMBER).contains(mark)).unwrap_or(x);
                let style = text(TEXT - 2, INK, HPos::Left, VPos::Center);
                root.draw(&Text::new(short(figure.mean, 4), (x + 6, y), style))?;
            }
            if let Some(paper) = bars.paper[at] {
                let mark = vec![(xs.at(paper), top), (xs.at(paper), bottom)];
                chart.draw_series([PathElement::new(mark.clone(), WHITE.stroke_width(5))])?;
                chart.draw_series([PathElement::new(mark, INK.stroke_width(3))])?;
            }
        }
    }
    for (at, name) in names.iter().enumerate() {
        let row = frame.legend_row(at);
        if at < bars.len() {
            root.draw(&Rectangle::new(
                [(row.0 + 4, row.1 - 6), (row.0 + 20, row.1 + 6)],
                COLOURS[at % COLOURS.len()].filled(),
            ))?;
        } else {
            let mark = vec![(row.0 + 12, row.1 - 8), (row.0 + 12, row.1 + 8)];
            root.draw(&PathElement::new(mark, INK.stroke_width(3)))?;
        }
        let style = text(TEXT, INK, HPos::Left, VPos::Center);
        root.draw(&Text::new((*name).to_owned(), (row.0 + 30, row.1), style))?;
    }
    root.present()?;
    Ok(())
}

fn longest(texts: impl Iterator<Item = String>) -> i32 {
    texts.map(|text| text.chars().count()).max().unwrap_or(0) as i32
}

fn legend_width(names: &[&str]) -> i32 {
    52 + LETTER * longest(names.iter().map(|&name| name.to_owned()))
}

/// What surrounds the drawing: title, axes, and room for the legend.
struct Frame<'a> {
    title: &'a str,
    left: i32,
    right: i32,
    width: i32,
    height: i32,
    /// Height of what is below the drawing.
    bottom: i32,
}

impl Frame<'_> {
    fn chart<'a>(
        &self,
        root: &Root<'a>,
        x: Range<f64>,
        y: Range<f64>,
    ) -> Result<Chart<'a>, Box<dyn std::error::Error>> {
        let style = text(TEXT + 3, INK, HPos::Left, VPos::Center);
        root.draw(&Text::new(self.title.to_owned(), (self.left, TOP / 2), style))?;
        Ok(ChartBuilder::on(root)
            .margin_left(self.left)
            .margin_right(self.right)
            .margin_top(TOP)
            .margin_bottom(self.bottom)
            .build_cartesian_2d(x, y)?)
    }

    fn axis_x(&self, root: &Root<'_>, chart: &Chart<'_>, xs: &Scale<'_>) -> Drawn {
        let (top, bottom) = (TOP, self.height - self.bottom);
        let middle = chart.y_range();
        for &tick in &xs.ticks {
            let (x, _) = chart.backend_coord(&(xs.at(tick), middle.start));
            root.draw(&PathElement::new(vec![(x, top), (x, bottom)], GRID.stroke_width(1)))?;
            let style = text(TEXT, INK, HPos::Center, VPos::Top);
            root.draw(&Text::new(xs.label(tick), (x, bottom + 7), style))?;
        }
        let ends = vec![(self.left, bottom), (self.width - self.right, bottom)];
        root.draw(&PathElement::new(ends, INK.stroke_width(1)))?;
        let centre = (self.left + self.width - self.right) / 2;
        let style = text(TEXT, INK, HPos::Center, VPos::Bottom);
        root.draw(&Text::new(xs.axis.label.clone(), (centre, self.height - 6), style))?;
        Ok(())
    }

    fn axis_y(&self, root: &Root<'_>, chart: &Chart<'_>, ys: &Scale<'_>) -> Drawn {
        let right = self.width - self.right;
        let middle = chart.x_range();
        for &tick in &ys.ticks {
            let (_, y) = chart.backend_coord(&(middle.start, ys.at(tick)));
            root.draw(&PathElement::new(vec![(self.left, y), (right, y)], GRID.stroke_width(1)))?;
            let style = text(TEXT, INK, HPos::Right, VPos::Center);
            root.draw(&Text::new(ys.label(tick), (self.left - 7, y), style))?;
        }
        let ends = vec![(self.left, TOP), (self.left, self.height - self.bottom)];
        root.draw(&PathElement::new(ends, INK.stroke_width(1)))?;
        let centre = (TOP + self.height - self.bottom) / 2;
        let style = text(TEXT, INK, HPos::Center, VPos::Center).transform(FontTransform::Rotate270);
        root.draw(&Text::new(ys.axis.label.clone(), (14, centre), style))?;
        Ok(())
    }

    /// Where the sample of a row of the legend begins, at half of its height.
    fn legend_row(&self, at: usize) -> (i32, i32) {
        (self.width - self.right + 14, TOP + 10 + 22 * at as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(nice(0.0..1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(nice(1.0..23.0), [5.0, 10.0, 15.0, 20.0]);
        assert_eq!(decades(0.3, 12.0), [0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!(decades(1.0, 1e5), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
    }

    #[test]
    fn a_plot_names_everything_and_escapes_it() {
        let plot = Plot {
            name: "p".into(),
            title: "a < b".into(),
            body: Body::Lines {
                x: Axis::logarithmic("bytes"),
                y: Axis::from_zero("Recall@10"),
                lines: vec![
                    Line {
                        labels: vec!["half".into(), "whole".into()],
                        ..Line::new(
                            "ours",
                            vec![
                                (1e6, Figure { mean: 0.1, deviation: Some(0.02) }),
                                (2e6, Figure::from(0.2)),
                            ],
                        )
                    },
                    Line::of_paper(
                        "paper",
                        vec![(1e6, Figure::from(0.15)), (2e6, Figure::from(0.15))],
                    ),
                ],
            },
        };
        let svg = plot.svg().unwrap();
        let names =
            ["a &lt; b", "bytes (log scale)", "Recall@10", "ours", "paper", "half", "whole"];
        for part in names.into_iter().chain(["1M", "0.2"]) {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn many_lines_differ_in_colour_or_mark_and_equal_ones_are_all_seen() {
        let svg = |lines: Vec<Line>| {
            let body = Body::Lines { x: Axis::linear("x"), y: Axis::from_zero("y"), lines };
            Plot { name: String::new(), title: "t".into(), body }.svg().unwrap()
        };
        let looks: Vec<_> = (0..9).map(Look::of).map(|look| (look.colour, look.mark)).collect();
        for (at, look) in looks.iter().enumerate() {
            assert!(!looks[..at].contains(look), "line {at} looks like another");
        }
        let line =
            |at: f64| Line::new("l", vec![(1.0, Figure::from(at)), (2.0, Figure::from(2.0 * at))]);
        let nine = svg((1..=9).map(|at| line(f64::from(at))).collect());
        assert!(!nine.contains("stroke-width=\"6\""), "none lies on another: {nine}");
        let equal = svg(vec![line(1.0), line(1.0), line(1.0), line(2.0)]);
        for width in ["stroke-width=\"6\"", "stroke-width=\"10\""] {
            assert_eq!(equal.matches(width).count(), 1, "{equal}");
        }
        // The marks of the lower lines are larger than those that lie on them.
        for radius in ["r=\"7\"", "r=\"10\""] {
            assert!(equal.contains(radius), "{equal}");
        }
    }

    #[test]
    fn a_number_stands_at_its_bar_and_makes_room_for_a_mark() {
        let place = |paper| {
            let bars = vec![Bars {
                name: "b".into(),
                figures: vec![Some(Figure::from(0.1234)), Some(Figure::from(1.0))],
                paper: vec![Some(paper), None],
            }];
            let (x, groups) = (Axis::from_zero("x"), vec!["g".into(), "h".into()]);
            let body = Body::Bars { x, groups, bars };
            let svg = Plot { name: String::new(), title: "t".into(), body }.svg().unwrap();
            let (before, _) = svg.split_once(".1234").unwrap();
            let (_, tag) = before.rsplit_once("<text x=\"").unwrap();
            tag.split_once('"').unwrap().0.parse::<i32>().unwrap()
        };
        let free = place(0.1);
        assert!(place(0.13) > free);
        assert_eq!(place(0.9), free);
    }

    #[test]
    fn plots_of_little_or_nothing_are_drawn_all_the_same() {
        let lines = |points: Vec<(f64, Figure)>| Body::Lines {
            x: Axis::linear("x"),
            y: Axis::from_zero("y"),
            lines: vec![Line::new("l", points)],
        };
        let bars = |figure| Body::Bars {
            x: Axis::from_zero("x"),
            groups: vec!["g".into()],
            bars: vec![Bars { name: "b".into(), figures: vec![figure], paper: vec![None] }],
        };
        for body in [
            lines(vec![]),
            lines(vec![(3.0, Figure::from(0.0))]),
            bars(None),
            bars(Some(Figure::from(0.0))),
        ] {
            let svg = Plot { name: String::new(), title: "t".into(), body }.svg().unwrap();
            assert!(svg.contains("</svg>") && !svg.contains("NaN"), "{svg}");
        }
    }
}
