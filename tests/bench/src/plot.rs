//! Horizontal bars with their range, as SVG.

use crate::result::Spread;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 40.0;
const ROW: f64 = 26.0;

/// One bar.
pub(crate) struct Line {
    /// What stands before it.
    pub(crate) name: String,
    /// Its length, and the range shown on it.
    pub(crate) spread: Spread,
    /// Whether it stands out.
    pub(crate) is_ours: bool,
}

/// A chart.
pub(crate) struct Bars {
    /// What stands above.
    pub(crate) title: String,
    /// What the numbers are.
    pub(crate) unit: String,
    /// The bars, from top to bottom.
    pub(crate) lines: Vec<Line>,
    /// Where a dashed line stands.
    pub(crate) mark: Option<f64>,
}

impl Bars {
    /// The chart as SVG.
    pub(crate) fn svg(&self) -> String {
        let height = TOP + ROW * self.lines.len() as f64 + 30.0;
        let most = self.lines.iter().map(|l| l.spread.max).chain(self.mark).fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LEFT + value.max(0.0) / most * (WIDTH - LEFT - RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"8\" y=\"20\" font-size=\"14\">{} ({})</text>\n",
            escaped(&self.title),
            escaped(&self.unit)
        );
        for (number, line) in self.lines.iter().enumerate() {
            let (y, Spread { median, min, max }) = (TOP + ROW * number as f64, line.spread);
            let colour = if line.is_ours { "#2563eb" } else { "#9ca3af" };
            let middle = y + 9.0;
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\" fill=\"{colour}\"/>\
                 <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#111\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{median:.2}</text>",
                LEFT - 8.0,
                y + 13.0,
                escaped(&line.name),
                x(median) - LEFT,
                x(min),
                x(max),
                x(max) + 6.0,
                y + 13.0,
            )
            .ok();
        }
        if let Some(mark) = self.mark {
            let (x, bottom) = (x(mark), height - 24.0);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom:.1}\" stroke=\"#dc2626\" stroke-dasharray=\"4 3\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" fill=\"#dc2626\" text-anchor=\"middle\">bar {mark}</text>",
                height - 8.0,
            )
            .ok();
        }
        svg + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
