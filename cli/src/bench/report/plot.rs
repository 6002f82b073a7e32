//! Plots as SVG: bars, lines and stacked shares. Colours are classes, which the page's style gives their meaning in light and dark.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
const LINE_HEIGHT: f64 = 300.0;
const BAR_HEIGHT: f64 = 34.0;
const NAME_WIDTH: f64 = 210.0;
/// For what stands behind a bar.
const VALUE_WIDTH: f64 = 190.0;
/// As many as the style has colours.
const COLORS: usize = 8;

/// One bar with its spread.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    /// Stands behind it.
    pub(super) text: String,
    /// Which colour.
    pub(super) group: usize,
}

/// One curve.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Words around a plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    /// What is seen, for whoever does not see it.
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// Horizontal bars, from zero, with whiskers from least to most.
pub(super) fn bars(words: Words<'_>, bars: &[Bar]) -> String {
    let height = TOP + bars.len() as f64 * BAR_HEIGHT + BOTTOM;
    let (from, to) = (NAME_WIDTH, WIDTH - VALUE_WIDTH);
    let scale = Scale::to(bars.iter().map(|bar| bar.most.max(bar.value)).fold(0.0, f64::max), from, to);
    let mut svg = open(words.title, height);
    for tick in scale.ticks() {
        let at = scale.at(tick);
        let end = height - BOTTOM;
        write(&mut svg, format_args!("<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{end:.1}\"/>"));
        write(
            &mut svg,
            format_args!("<text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>", end + 16.0, number(tick)),
        );
    }
    for (at, bar) in bars.iter().enumerate() {
        one_bar(&mut svg, bar, TOP + at as f64 * BAR_HEIGHT, &scale);
    }
    let middle = f64::midpoint(from, to);
    write(
        &mut svg,
        format_args!(
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text></svg>",
            height - 8.0,
            escape(words.x)
        ),
    );
    svg
}

fn one_bar(svg: &mut String, bar: &Bar, top: f64, scale: &Scale) {
    let (middle, end) = (top + BAR_HEIGHT / 2.0, scale.at(bar.value));
    let (name, text) = (escape(&bar.name), escape(&bar.text));
    write(
        svg,
        format_args!("<text class=\"name\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>", NAME_WIDTH - 10.0, middle + 4.0),
    );
    let width = (end - NAME_WIDTH).max(1.0);
    write(
        svg,
        format_args!(
            "<rect class=\"c{}\" x=\"{NAME_WIDTH}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"3\"><title>{name}: {text}</title></rect>",
            bar.group % COLORS,
            top + 6.0,
            BAR_HEIGHT - 12.0
        ),
    );
    if bar.most > bar.least {
        let (least, most) = (scale.at(bar.least), scale.at(bar.most));
        write(
            svg,
            format_args!(
                "<path class=\"whisker\" d=\"M{least:.1} {middle:.1}H{most:.1}M{least:.1} {:.1}v8M{most:.1} {:.1}v8\"/>",
                middle - 4.0,
                middle - 4.0
            ),
        );
    }
    let after = scale.at(bar.most.max(bar.value)) + 8.0;
    write(svg, format_args!("<text class=\"value\" x=\"{after:.1}\" y=\"{:.1}\">{text}</text>", middle + 4.0));
}

/// Curves over one pair of axes, both from zero, with a legend below.
pub(super) fn lines(words: Words<'_>, lines: &[Line]) -> String {
    let legend = lines.len().div_ceil(3) as f64 * 20.0;
    let height = LINE_HEIGHT + legend;
    let most = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|line| line.points.iter().map(of)).fold(0.0, f64::max);
    let across = Scale::to(most(|point| point.0), LEFT, WIDTH - RIGHT);
    let up = Scale::to(most(|point| point.1), LINE_HEIGHT - BOTTOM, TOP);
    let mut svg = open(words.title, height);
    axes(&mut svg, words, &across, &up);
    for (at, line) in lines.iter().enumerate() {
        let points: Vec<String> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", across.at(*x), up.at(*y))).collect();
        let (color, name) = (at % COLORS, escape(&line.name));
        write(
            &mut svg,
            format_args!("<polyline class=\"line s{color} d{}\" points=\"{}\"><title>{name}</title></polyline>", at % 3, points.join(" ")),
        );
        if let [(x, y)] = line.points[..] {
            write(&mut svg, format_args!("<circle class=\"c{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>", across.at(x), up.at(y)));
        }
        let (x, y) = (LEFT + (at % 3) as f64 * 230.0, LINE_HEIGHT + 10.0 + (at / 3) as f64 * 20.0);
        write(
            &mut svg,
            format_args!("<line class=\"line s{color} d{}\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", at % 3, x + 26.0),
        );
        write(&mut svg, format_args!("<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>", x + 32.0, y + 4.0));
    }
    svg + "</svg>"
}

fn axes(svg: &mut String, words: Words<'_>, across: &Scale, up: &Scale) {
    let (bottom, end) = (LINE_HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in up.ticks() {
        let y = up.at(tick);
        write(svg, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
        write(
            svg,
            format_args!("<text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", LEFT - 8.0, y + 4.0, number(tick)),
        );
    }
    for tick in across.ticks() {
        write(
            svg,
            format_args!(
                "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                across.at(tick),
                bottom + 16.0,
                number(tick)
            ),
        );
    }
    let (x, y) = (f64::midpoint(LEFT, end), f64::midpoint(TOP, bottom));
    write(
        svg,
        format_args!("<text class=\"axis\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", bottom + 34.0, escape(words.x)),
    );
    write(
        svg,
        format_args!(
            "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(14 {y:.1}) rotate(-90)\">{}</text>",
            escape(words.y)
        ),
    );
}

/// Rows of shares that add up to one, with a legend below.
pub(super) fn shares(words: Words<'_>, rows: &[(String, Vec<(String, f64)>)]) -> String {
    let mut names: Vec<&String> = rows.iter().flat_map(|(_, shares)| shares.iter().map(|(name, _)| name)).collect();
    names.sort();
    names.dedup();
    let bottom = TOP + rows.len() as f64 * BAR_HEIGHT;
    let (width, mut svg) = (WIDTH - NAME_WIDTH - RIGHT, open(words.title, bottom + 30.0 + names.len().div_ceil(4) as f64 * 20.0));
    for (at, (row, shares)) in rows.iter().enumerate() {
        let (y, mut x) = (TOP + at as f64 * BAR_HEIGHT, NAME_WIDTH);
        write(
            &mut svg,
            format_args!(
                "<text class=\"name\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                NAME_WIDTH - 10.0,
                y + 21.0,
                escape(row)
            ),
        );
        for (name, share) in shares {
            let color = names.iter().position(|known| *known == name).unwrap_or_default() % COLORS;
            let label = format!("{}: {:.0} %", escape(name), share * 100.0);
            write(
                &mut svg,
                format_args!(
                    "<rect class=\"c{color}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"22\"><title>{label}</title></rect>",
                    y + 6.0,
                    share * width
                ),
            );
            x += share * width;
        }
    }
    for (at, name) in names.iter().enumerate() {
        let (x, y) = (LEFT + (at % 4) as f64 * 170.0, bottom + 16.0 + (at / 4) as f64 * 20.0);
        write(&mut svg, format_args!("<rect class=\"c{}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\"/>", at % COLORS, y - 10.0));
        write(&mut svg, format_args!("<text class=\"tick\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>", x + 18.0, escape(name)));
    }
    svg + "</svg>"
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

/// Writing to a string does not fail.
fn write(svg: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(what);
}

/// From zero to a round number, onto a stretch of the picture.
#[derive(Debug)]
struct Scale {
    top: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Ticks at 1, 2 or 5 times a power of ten, about five of them.
    fn to(most: f64, from: f64, to: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| most / step <= 6.0).unwrap_or(10.0 * power);
        Self { top: (most / step).ceil() * step, step, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * value / self.top
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (0..=(self.top / self.step).round() as u32).map(|tick| f64::from(tick) * self.step)
    }
}

/// As short as it can be said.
fn number(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => format!("{:.0}k", value / 1_000.0),
        value if value.fract().abs() < 1e-6 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

/// Text that is text in HTML, whatever is in it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_a_round_number_and_nothing_lies_outside() {
        for most in [0.0, 0.03, 1.0, 9.9, 52_000.0, f64::NAN] {
            let scale = Scale::to(most, 0.0, 100.0);
            let ticks: Vec<f64> = scale.ticks().collect();
            assert!((2..=8).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(most.is_nan() || scale.at(most) <= 100.0, "{most}");
        }
    }

    #[test]
    fn names_cannot_become_markup() {
        let bar = Bar { name: "<script>".into(), value: 1.0, least: 1.0, most: 1.0, text: "\"&".into(), group: 0 };
        let svg = bars(Words { title: "t<", x: "x", y: "" }, &[bar]);
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;") && svg.contains("&quot;&amp;"));
    }
}
