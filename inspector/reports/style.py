"""The page's style sheet: readable in light, dark and on paper; no fonts, pictures or scripts from anywhere."""

STYLE = """
:root { --ground: #fbfaf7; --text: #1f2328; --quiet: #656b73; --line: #d9d6cc; --card: #ffffff; --accent: #0b5c9c;
  --good: #1e6e4e; --bad: #a93226; --open: #7a5a00; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --text: #d7dde4; --quiet: #8f9aa6; --line: #33404d;
  --card: #1b2129; --accent: #56b4e9; --good: #5fc79b; --bad: #f08c7d; --open: #e6c35c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 74rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.3rem; margin: 0; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 62rem; } .quiet { color: var(--quiet); }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.4rem; }
nav ol { columns: 3 15rem; padding-left: 1.4rem; margin: .6rem 0; } a { color: var(--accent); }
code, .hash { font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; margin: .6rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: .3rem 0; }
th { text-align: left; border-bottom: 2px solid var(--line); padding: .25rem .7rem .25rem 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: .2rem .7rem .2rem 0; vertical-align: top; }
td.name { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: .8rem 0; background: #ffffff; color: #111111; border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem; max-width: 100%; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { font-size: 13px; max-width: 40rem; color: #444; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); } .verdict { font-weight: 600; }
.warning { border-left: 3px solid var(--open); padding-left: .7rem; }
details > summary { cursor: pointer; color: var(--quiet); margin: .8rem 0 .2rem; }
@media print { body { max-width: none; padding: 0; font-size: 10.5px; } section { break-before: page; }
  #claims { break-before: auto; } h2, h3 { break-after: avoid; } h3 { margin: .7rem 0 .2rem; }
  section { margin-top: 0; padding-top: .4rem; } th, td { padding: .1rem .5rem .1rem 0; } pre { break-inside: avoid; }
  table, pre { font-size: 9px; } figure, tr { break-inside: avoid; } .wide { overflow: visible; } nav { display: none; }
  .figures { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; } figure { margin: .3rem 0; padding: .4rem; }
  figure:only-child { grid-column: 1 / -1; max-width: 4.6in; } figure svg { width: 100%; }
  figcaption { font-size: 9px; } details:not([open]) { display: none; }
  :root { --ground: #ffffff; --text: #000000; --card: #ffffff; } }
"""
