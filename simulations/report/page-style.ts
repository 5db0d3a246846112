/** The style sheet of a report page: screen in light and dark, phone, paper. System fonts only. */
import { darkPalette, figureStyle, lightPalette, type Palette } from './svg.ts';

function variables(palette: Palette, extra: string): string {
  return `--bg:${palette.background};--ink:${palette.ink};--muted:${palette.muted};--rule:${palette.rule};--grid:${palette.grid};--accent:${palette.series[0]};${extra}`;
}
const light = variables(lightPalette, '--panel:#f5f7f9;--shade:#0002;--good:#00694b;--bad:#a84300');
const dark = variables(darkPalette, '--panel:#1c2127;--shade:#fff2;--good:#4fd1a5;--bad:#ff9d5c');

export const pageStyle = `:root{color-scheme:light dark;${light}}
@media screen and (prefers-color-scheme:dark){:root{${dark}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
.page{max-width:56rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}
h1{font-size:1.05rem;font-weight:600;line-height:1.3;color:var(--muted);margin:0 0 .6rem}
h2{font-size:1.4rem;line-height:1.25;letter-spacing:-.01em;margin:3.2rem 0 .7rem;padding-top:1.1rem;border-top:1px solid var(--grid)}
h3{font-size:1.08rem;line-height:1.3;margin:0 0 .5rem}
p,ul{max-width:42rem;margin:0 0 .9rem}
ul{padding-left:1.2rem}
li{margin:.3rem 0}
a{color:var(--accent)}
.headline{font-size:clamp(1.5rem,1.15rem + 1.7vw,2.3rem);line-height:1.2;letter-spacing:-.02em;font-weight:650;max-width:48rem;margin:0 0 1rem;text-wrap:balance}
.lead{font-size:1.06rem}
.meta,.note,figcaption,caption,.scope{color:var(--muted);font-size:.88rem;line-height:1.5}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:0 1.8rem;margin:1.8rem 0 0;padding:0}
.facts>div{border-top:2px solid var(--ink);padding:.55rem 0 1.1rem}
.facts dt{font-size:.88rem;color:var(--muted);line-height:1.35}
.facts dd{margin:.1rem 0 0;font-size:1.55rem;line-height:1.2;font-weight:600;letter-spacing:-.01em}
.facts dd small{display:block;font-size:.84rem;line-height:1.4;font-weight:400;letter-spacing:0;color:var(--muted);margin-top:.15rem}
.wide{background:linear-gradient(90deg,transparent,var(--bg) 70%) right/3rem 100% no-repeat local,linear-gradient(90deg,transparent,var(--shade)) right/1rem 100% no-repeat scroll;overflow-x:auto;container-type:inline-size;margin:0 0 .9rem;max-width:100%}
.wide:focus-visible,summary:focus-visible,a:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-size:.88rem;line-height:1.4;min-width:100%}
caption{text-align:left;max-width:100cqw;position:sticky;left:0;padding:0 0 .6rem;caption-side:top}
th,td{padding:.38rem .55rem;text-align:right;white-space:nowrap;vertical-align:baseline}
thead th{vertical-align:bottom;font-weight:600;border-bottom:1.5px solid var(--ink);white-space:normal;line-height:1.25}
thead th small{display:block;white-space:nowrap;font-weight:400;color:var(--muted)}
tbody tr+tr>*{border-top:1px solid var(--grid)}
tfoot>tr:first-child>*{border-top:1.5px solid var(--ink)}
tfoot tr:first-child>*{font-weight:600}
tfoot td,tfoot th{padding-block:.3rem}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
tbody th,tfoot th{font-weight:600;text-align:left}
th[scope=row] small{display:block;font-weight:400;font-size:.84rem;line-height:1.35;color:var(--muted)}
.l{white-space:normal!important;min-width:13rem}
thead th:first-child,.t{text-align:left}
thead th.t{text-align:left}
.up{color:var(--good);font-weight:600}.down{color:var(--bad);font-weight:600}
figure{margin:2rem 0 2.4rem}
figcaption{max-width:44rem;margin-top:.6rem}
svg.fs{display:block;max-width:100%;height:auto}
svg.narrow{display:none}
pre{font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;background:var(--panel);border-left:3px solid var(--rule);margin:0 0 1rem;padding:.9rem 1.1rem;white-space:pre-wrap;overflow-wrap:anywhere}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.warn{border-left:3px solid var(--bad);padding:.1rem 0 .1rem .9rem}
details{margin:.7rem 0 0;font-size:.9rem}
summary{cursor:pointer;color:var(--muted);font-size:.88rem;width:fit-content}
details .wide{margin-top:.6rem}
details table{font-size:.82rem;min-width:0}
dl.settings{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.4rem;margin:0 0 1.2rem;font-size:.95rem}
dl.settings dt{color:var(--muted)}
dl.settings dd{margin:0;overflow-wrap:anywhere}
@media screen and (max-width:47rem){
body{font-size:16px}
.page{padding:1.4rem 1rem 3rem}
h2{margin-top:2.4rem}
svg.wide-layout{display:none}svg.narrow{display:block}
.facts{grid-template-columns:repeat(2,minmax(0,1fr));gap:0 1.1rem}
.facts dd{font-size:1.3rem}
th,td{padding-inline:.5rem}
.sticky th:first-child{position:sticky;left:0;background:var(--bg);max-width:9.5rem;min-width:0;white-space:normal;padding-right:.6rem;box-shadow:1px 0 0 var(--grid)}
dl.settings{grid-template-columns:1fr;gap:0}dl.settings dd{margin-bottom:.6rem}
pre{padding:.7rem .8rem}
}
@media print{
@page{margin:16mm 15mm}
html{font-size:12px}
body{font-size:1.05rem}
.headline{font-size:2.1rem}
.facts{grid-template-columns:repeat(4,1fr);gap:0 1rem;margin-top:1rem}
.page{max-width:none;padding:0}
h2{margin-top:1rem;padding-top:.7rem;break-after:avoid}
figure{margin:1rem 0 1.2rem}
p,ul,figcaption{max-width:none}
tfoot{display:table-row-group}
h3{break-after:avoid}
figure,.facts>div,tr{break-inside:avoid}
thead{display:table-header-group}
.wide{overflow:visible;background:none;container-type:normal}
table{font-size:.92rem}
th,td{padding-inline:.35rem}
thead th{min-width:0}
pre{border:1px solid var(--grid);border-left:3px solid var(--rule)}
details:not([open]){display:none}
}
${figureStyle()}`;
