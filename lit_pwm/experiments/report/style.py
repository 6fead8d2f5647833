"""The report's style sheet: one column, light and dark, readable on a phone, nothing fetched from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fbfbf9; --panel: #ffffff; --ink: #1d232c; --muted: #5c6675; --line: #dfe3e8; --accent: #0067a3;
  --best: #eaf3fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151a; --panel: #1a1e25; --ink: #e4e8ee; --muted: #9aa5b4; --line: #2f3640; --accent: #6cb8ea;
    --best: #1b2c3a;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; text-rendering: optimizeLegibility;
}
a { color: var(--accent); text-underline-offset: .2em; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--panel); padding: .5rem 1rem; }
.layout { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem 4rem; }
header { padding: 2.75rem 0 1.25rem; }
h1 {
  font-size: clamp(1.7rem, 4vw, 2.4rem); line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .5rem;
  text-wrap: balance;
}
h2 { font-size: 1.4rem; line-height: 1.3; letter-spacing: -.01em; margin: 0 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: 0 0 1rem; max-width: 44rem; }
.lead { color: var(--muted); font-size: 1.1rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.5rem 0 0; }
.facts div { background: var(--panel); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.facts dt { color: var(--muted); font-size: .82rem; }
.facts dd { margin: 0; font-size: 1.2rem; font-weight: 600; line-height: 1.35; overflow-wrap: anywhere; }
nav ol {
  display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; margin: 0; padding: .9rem 0; list-style: none;
  font-size: .95rem;
}
nav { border-block: 1px solid var(--line); margin-bottom: 2.25rem; }
section { margin: 0 0 3.25rem; }
.panels {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1.1rem;
  margin: 1rem 0;
}
figure {
  margin: 1rem 0; background: var(--panel); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem;
}
.panels figure { margin: 0; }
figure img, figure video { display: block; width: 100%; height: auto; border-radius: .3rem; }
figure.wide img { max-width: 46rem; margin: 0 auto; }
figcaption { color: var(--muted); font-size: .88rem; line-height: 1.45; margin-top: .6rem; }
figcaption strong { color: var(--ink); }
.scroll { overflow-x: auto; }
figure.table { padding: 0; }
figure.table figcaption { margin: 0; padding: .6rem .9rem .75rem; border-top: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td {
  text-align: right; padding: .55rem .9rem; border-bottom: 1px solid var(--line); vertical-align: baseline;
  white-space: nowrap;
}
tbody tr:last-child > * { border-bottom: 0; }
thead th {
  font-size: .82rem; font-weight: 600; color: var(--muted); vertical-align: bottom; white-space: normal;
  min-width: 5.5rem;
}
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 600; }
@media (max-width: 40rem) { thead th:first-child, tbody th { position: sticky; left: 0; background: var(--panel); } }
tr.total > * { border-top: 2px solid var(--line); }
td small { display: block; color: var(--muted); font-size: .8rem; }
td.best { background: var(--best); font-weight: 650; }
td.best small { font-weight: 400; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
code { font: .88em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.notice { border-left: .25rem solid var(--line); padding: .4rem 0 .4rem 1rem; color: var(--muted); align-self: start; }
footer { color: var(--muted); font-size: .88rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media print { nav, .skip { display: none; } section { break-inside: avoid; } }
"""
