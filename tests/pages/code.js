// The bar code that every page can be judged by, and the flash and beep that go with it.
//
// Three rows of 40 square cells: 2 sync cells, 36 bits, 2 sync cells each. Bits, most significant first: frame counter (24), wall
// clock in ms (32, modulo 2^32), requestAnimationFrame time stamp on the same clock in 0.1 ms (32, modulo 2^32), stage (4: what the
// page has been through, see each page), CRC-16 (16). Cells are 16 px or 8 px: whole or quarter macroblocks, which survive any
// bit rate. Below the code lies the flash patch: same width, four cells high. tests/e2e/judge/code.rs is the other end.
'use strict';

// Not a whole second: at 30 pictures per second 1.04 s moves the flash through five even phases of the picture grid, so that the
// median of five is free of rounding to pictures. The same period is burnt into the test videos.
const PERIOD_MS = 1040;
const FLASH_MS = 120;  // more than one picture at 10 per second
const BEEP_MS = 80;
const BEEP_HZ = 2000;
const BED_HZ = 440;    // a quiet tone that never stops: a hole in it is a hole in the recorded sound
const BED_GAIN = 0.05;
const COLUMNS = 40, ROWS = 3, FLASH_ROWS = 4;

const code = {stage: 0, counter: 0, interval: 1000 / 30, last: 0};

/** Wall clock in ms, modulo 2^32 as in the code; the same clock as every time stamp of this page. Flash and beep are due at its
 *  multiples of PERIOD_MS. */
function wall(t = performance.now()) { return (performance.timeOrigin + t) % 2 ** 32; }

function crc16(bytes) {
  let crc = 0xffff;
  for (const b of bytes) {
    crc ^= b << 8;
    for (let i = 0; i < 8; i++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc;
}

/** The 108 bits as an array of 0 and 1. */
function codeBits(counter, wallMs, raf, stage) {
  const bytes = [];
  const push = (value, n) => { for (let i = n - 1; i >= 0; i--) bytes.push(Math.floor(value / 2 ** (8 * i)) % 256); };
  push(counter % 2 ** 24, 3);
  push(Math.floor(wallMs), 4);
  push(Math.floor(raf * 10) % 2 ** 32, 4);
  const crc = crc16([...bytes, stage & 15]);
  const bits = [];
  for (const b of bytes) for (let i = 7; i >= 0; i--) bits.push(b >> i & 1);
  for (let i = 3; i >= 0; i--) bits.push(stage >> i & 1);
  for (let i = 15; i >= 0; i--) bits.push(crc >> i & 1);
  return bits;
}

/** Draws the code (and the flash patch if `lit` is not null) into a 2D context at its origin. */
function drawCode(g, cell, raf, lit) {
  const bits = codeBits(code.counter, wall(), raf, code.stage);
  g.fillStyle = '#000';
  g.fillRect(0, 0, COLUMNS * cell, ROWS * cell);
  g.fillStyle = '#fff';
  for (let r = 0; r < ROWS; r++) {
    g.fillRect(0, r * cell, cell, cell);
    g.fillRect((COLUMNS - 1) * cell, r * cell, cell, cell);
    for (let c = 0; c < 36; c++) if (bits[r * 36 + c]) g.fillRect((c + 2) * cell, r * cell, cell, cell);
  }
  if (lit !== null) {
    g.fillStyle = lit ? '#fff' : '#181818';
    g.fillRect(0, ROWS * cell, COLUMNS * cell, FLASH_ROWS * cell);
  }
}

/** True while the picture drawn at rAF time `ts` (wall ms) is to be lit. A picture drawn at `ts` is shown one interval later; the
 *  flash begins with the picture that is shown nearest to the instant, as a media player would choose it. */
function isLit(ts) { return (ts + 1.5 * code.interval) % PERIOD_MS < FLASH_MS; }

function tick(ts) {
  if (code.last) {
    const d = ts - code.last;
    if (d > 4 && d < 120) code.interval += (d - code.interval) * 0.1;
  }
  code.last = ts;
  code.counter++;
}

/** Puts the code at (x, y). `flash`: draw the patch too. `video`: change with this element's frames, `videoRate` a second, instead of the
 *  page's. (requestVideoFrameCallback would be the way, but it leaves out one frame in five at these rates.) */
function startCode({x = 0, y = 0, cell = 16, flash = true, video = null, videoRate = 0} = {}) {
  const canvas = document.createElement('canvas');
  canvas.width = COLUMNS * cell;
  canvas.height = (ROWS + (flash ? FLASH_ROWS : 0)) * cell;
  canvas.style.cssText = `position:fixed;left:${x}px;top:${y}px;z-index:2147483647`;
  document.body.appendChild(canvas);
  const g = canvas.getContext('2d', {alpha: false});
  let shown = null;
  const draw = t => {
    requestAnimationFrame(draw);
    const frame = video && Math.floor(video.currentTime * videoRate);
    if (video && frame === shown) return;
    shown = frame;
    const ts = wall(t);
    tick(ts);
    drawCode(g, cell, ts, flash ? isLit(ts) : null);
  };
  requestAnimationFrame(draw);
}

/** Beeps at the instants of the flash. `toContextTime(wallMs)` says which context time is heard (or sent) at a wall time. */
function startBeeps(ctx, out, toContextTime, {bed = BED_GAIN, pip = 0.5} = {}) {
  const tone = new OscillatorNode(ctx, {frequency: BED_HZ});
  if (bed) tone.connect(new GainNode(ctx, {gain: bed})).connect(out);
  tone.start();
  const volume = new GainNode(ctx, {gain: pip});
  volume.connect(out);
  let next = 0;
  setInterval(() => {
    if (ctx.state !== 'running') return;
    const now = wall();
    next = Math.max(next, Math.ceil((now + 100) / PERIOD_MS));
    while (next * PERIOD_MS < now + 500) {
      const at = toContextTime(next * PERIOD_MS);
      next++;
      if (at === null || at < ctx.currentTime) continue;
      const beep = new OscillatorNode(ctx, {frequency: BEEP_HZ});
      beep.connect(volume);
      beep.start(at);
      beep.stop(at + BEEP_MS / 1000);
    }
  }, 50);
}

/** Sound of the page itself: scheduled against what the output device says it is playing. */
function startSound(gains) {
  const ctx = new AudioContext();
  startBeeps(ctx, ctx.destination, ms => {
    const at = ctx.getOutputTimestamp();
    if (!at.performanceTime) return null;
    return at.contextTime + (ms - wall(at.performanceTime)) / 1000;
  }, gains);
  return ctx;
}

/** Something that moves: dots on orbits, one canvas of moderate size. */
function startMotion(parent = document.body, width = 560, height = 240) {
  const canvas = document.createElement('canvas');
  canvas.width = width; canvas.height = height; canvas.className = 'motion';
  parent.appendChild(canvas);
  const g = canvas.getContext('2d');
  const draw = t => {
    g.clearRect(0, 0, width, height);
    for (let i = 0; i < 24; i++) {
      const a = t / (900 + 60 * i) + i * 0.8, r = height * (0.12 + 0.013 * i);
      g.fillStyle = `hsl(${i * 15 + t / 40} 80% 60%)`;
      g.beginPath();
      g.arc(width / 2 + Math.cos(a) * r * width / height, height / 2 + Math.sin(a) * r, 4 + i / 4, 0, 7);
      g.fill();
    }
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
}

/** Tells the test's server that something happened. */
function note(text) { fetch('/note?' + encodeURIComponent(text), {method: 'POST', keepalive: true}).catch(() => {}); }
