//! A chart as inline SVG: lines over two axes, or bars. Pure: numbers and names in, text out.
//!
//! Colours are classes (`s0` to `s4`), so that the page's style decides them for light, dark and paper; lines differ in
//! their dashes as well. Each point can be pointed at and then says its values.

use super::axis::{Axis, Scale, Unit, short};
use super::escape;

/// The drawing's size, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Room for labels around the plot.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Height of a bar with the room below it, and the part of the width that names take.
const BAR_PITCH: f64 = 24.0;
const BAR_NAMES: f64 = 150.0;
/// Room behind the longest bar for its value.
const BAR_VALUE: f64 = 130.0;
/// Classes of colours.
const COLOURS: usize = 5;

/// A line: its name and points in the order of x.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Which colour, 0 to 4.
    pub(super) colour: usize,
    pub(super) points: Vec<(f64, f64)>,
}

/// How an axis is to be made over the values of a chart's lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisKind(pub(super) &'static str, pub(super) Unit, pub(super) Scale);

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(super) struct LineChart {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    pub(super) x: AxisKind,
    pub(super) y: AxisKind,
    pub(super) lines: Vec<Line>,
    /// A range of x that is not measured.
    pub(super) shaded: Option<(f64, f64)>,
}

/// Bars with a name and a value each.
#[derive(Clone, Debug)]
pub(super) struct BarChart {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    /// Name, length and what is written behind it.
    pub(super) bars: Vec<(String, f64, String)>,
}

impl LineChart {
    /// The figure; nothing when there is no point.
    pub(super) fn render(&self, out: &mut String) {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        if all().next().is_none() {
            return;
        }
        let shaded = self.shaded.into_iter().flat_map(|(from, to)| [from, to]);
        let x = axis(self.x, all().map(|p| p.0).chain(shaded));
        let y = axis(self.y, all().map(|p| p.1));
        open_figure(out, self.id, self.title, HEIGHT);
        if let Some((from, to)) = self.shaded {
            let (left, right) = (x_of(&x, from), x_of(&x, to));
            out.push_str(&format!(
                r#"<rect class="shade" x="{left:.1}" y="{TOP}" width="{:.1}" height="{:.1}"/>"#,
                (right - left).max(0.0),
                HEIGHT - TOP - BOTTOM
            ));
        }
        push_grid(out, &x, &y);
        for line in &self.lines {
            push_line(out, line, &x, &y);
        }
        out.push_str("</svg>\n<ul class=\"legend\">");
        for line in &self.lines {
            out.push_str(&format!(
                r#"<li><svg viewBox="0 0 24 8" aria-hidden="true"><line class="line s{}" x1="0" y1="4" x2="24" y2="4"/></svg>{}</li>"#,
                line.colour % COLOURS,
                escape(line.name)
            ));
        }
        out.push_str("</ul>");
        close_figure(out, self.note);
    }
}

impl BarChart {
    /// The figure; nothing when there is no bar.
    pub(super) fn render(&self, out: &mut String) {
        let longest = self.bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        if longest <= 0.0 {
            return;
        }
        open_figure(out, self.id, self.title, BAR_PITCH * self.bars.len() as f64 + TOP);
        let room = WIDTH - BAR_NAMES - BAR_VALUE;
        for (i, (name, value, text)) in self.bars.iter().enumerate() {
            let (top, width) = (TOP + BAR_PITCH * i as f64, room * value / longest);
            let middle = top + BAR_PITCH / 2.0;
            out.push_str(&format!(
                r#"<text class="end" x="{:.1}" y="{middle:.1}">{}</text><rect class="bar" data-series="{}" x="{BAR_NAMES}" y="{:.1}" width="{:.1}" height="{:.1}"/><text x="{:.1}" y="{middle:.1}">{}</text>"#,
                BAR_NAMES - 8.0,
                escape(name),
                escape(name),
                top + 3.0,
                width.max(1.0),
                BAR_PITCH - 6.0,
                BAR_NAMES + width.max(1.0) + 6.0,
                escape(text)
            ));
        }
        out.push_str("</svg>");
        close_figure(out, self.note);
    }
}

fn axis(AxisKind(label, unit, scale): AxisKind, values: impl Iterator<Item = f64>) -> Axis {
    Axis::over(label, unit, scale, values)
}

fn x_of(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.position(value) * (WIDTH - LEFT - RIGHT)
}

fn y_of(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.position(value) * (HEIGHT - TOP - BOTTOM)
}

fn push_grid(out: &mut String, x: &Axis, y: &Axis) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in y.ticks() {
        let at = y_of(y, tick);
        out.push_str(&format!(
            r#"<line class="grid" x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}"/><text class="end" x="{:.1}" y="{at:.1}">{}</text>"#,
            LEFT - 8.0,
            escape(&y.unit.text(tick))
        ));
    }
    for tick in x.ticks() {
        let at = x_of(x, tick);
        out.push_str(&format!(
            r#"<line class="grid" x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom}"/><text class="mid" x="{at:.1}" y="{:.1}">{}</text>"#,
            bottom + 14.0,
            escape(&x.unit.text(tick))
        ));
    }
    out.push_str(&format!(
        r#"<text class="mid name" x="{:.1}" y="{:.1}">{}</text>"#,
        (LEFT + right) / 2.0,
        HEIGHT - 8.0,
        escape(x.label)
    ));
}

fn push_line(out: &mut String, line: &Line, x: &Axis, y: &Axis) {
    let at: Vec<_> = line.points.iter().map(|(a, b)| (x_of(x, *a), y_of(y, *b))).collect();
    let path: Vec<_> = at.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
    let (name, colour) = (escape(line.name), line.colour % COLOURS);
    out.push_str(&format!(
        r#"<polyline class="line s{colour}" data-series="{name}" points="{}"/><g class="dots s{colour}">"#,
        path.join(" ")
    ));
    for ((left, top), (a, b)) in at.iter().zip(&line.points) {
        out.push_str(&format!(
            r#"<circle cx="{left:.1}" cy="{top:.1}" r="4"><title>{name}: {} at {}</title></circle>"#,
            escape(&y.unit.text(*b)),
            escape(&x.unit.text(*a))
        ));
    }
    out.push_str("</g>");
}

fn open_figure(out: &mut String, id: &str, title: &str, height: f64) {
    let title = escape(title);
    out.push_str(&format!(
        "<figure id=\"{id}\"><h2>{title}</h2>\n<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">",
        short(WIDTH),
        height.ceil()
    ));
}

fn close_figure(out: &mut String, note: &str) {
    if !note.is_empty() {
        out.push_str(&format!("<figcaption>{}</figcaption>", escape(note)));
    }
    out.push_str("</figure>\n");
}
