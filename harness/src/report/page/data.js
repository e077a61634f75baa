'use strict';
// Everything that a service wrote becomes text nodes and never markup: `el` is the only maker of nodes.
const $ = id => document.getElementById(id);
const el = (tag, attributes = {}, ...kids) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node.addEventListener(key, value);
    else if (key === 'style') for (const [name, what] of Object.entries(value)) node.style.setProperty(name, what);
    else node.setAttribute(key, value);
  }
  for (const kid of kids.flat()) if (kid !== null && kid !== undefined && kid !== '') node.append(kid);
  return node;
};

const VERDICT = ['passed', 'failed', 'errored'], MARK = ['✓', '✗', '!'], RANK = [2, 0, 1];

// The packed form is documented in html.rs: arrays in a fixed order, with texts as places in `strings`.
const unpack = async () => {
  const text = $('data').textContent;
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
  else {
    const raw = atob(text);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  }
  const run = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).json();
  run.text = at => run.strings[at];
  run.rows = run.rows.map(([file, line, feature, scenario, cells], index) => {
    const row = { index, file, line, feature, scenario };
    row.cells = cells.map((cell, deployment) => {
      if (!cell) return null;
      const [verdict, took, step, stepLine, message, proofs, advice, evidence, stories] = cell;
      return { row, deployment, verdict, took, step, stepLine, message, proofs, advice, evidence, stories };
    });
    return row;
  });
  return run;
};
const story = ([title, trace, spans, loose]) => ({ title, trace, spans, loose });
const span = ([depth, kind, flags, name, service, status, start, took, id, attributes, events, logs]) =>
  ({ depth, kind, derived: flags & 1, orphan: flags & 2, name, service, status, start, took, id, attributes, events, logs });
const log = ([origin, level, message, fields]) => ({ origin, level, message, fields });

// Which texts stand in a thing: places in `strings`.
const textsOfLog = (packed, add) => { const l = log(packed); add(l.level); add(l.message); l.fields.forEach(add); };
const textsOfSpan = (packed, add) => {
  const s = span(packed);
  add(s.kind); add(s.name); add(s.service); add(s.status); add(s.id);
  s.attributes.forEach(add);
  for (const [name, attributes] of s.events) { add(name); attributes.forEach(add); }
  s.logs.forEach(l => textsOfLog(l, add));
};
const textsOfCell = (run, cell) => {
  if (cell.texts) return cell.texts;
  const { row } = cell, texts = [row.file, row.feature, row.scenario, run.deployments[cell.deployment], cell.step, cell.message,
    ...cell.proofs, ...cell.advice];
  const add = text => texts.push(text);
  for (const packed of cell.stories) {
    const s = story(packed);
    add(s.title); add(s.trace);
    s.spans.forEach(p => textsOfSpan(p, add));
    s.loose.forEach(l => textsOfLog(l, add));
  }
  return cell.texts = Uint32Array.from(texts);
};

// For each word or "phrase" of a search, which strings contain it.
const finder = run => {
  let lower = null, last = '', found = [];
  return query => {
    if (query === last) return found;
    last = query;
    lower ??= run.strings.map(text => text.toLowerCase());
    const words = [...query.toLowerCase().matchAll(/"([^"]+)"?|[^\s"]+/g)].map(([word, phrase]) => phrase ?? word);
    found = words.map(word => Uint8Array.from(lower, text => text.includes(word)));
    return found;
  };
};

// Rows of one height that are made when they come near to what is seen; in between they are empty space.
const lazy = (scroller, count, height, make) => {
  const SIZE = 100, root = el('div', { role: 'none' }), blocks = [];
  const fill = block => {
    if (block.full) return;
    block.full = true;
    watch.unobserve(block.node);
    block.node.style.removeProperty('height');
    const rows = [];
    for (let i = block.from; i < block.to; i++) rows.push(make(i));
    block.node.replaceChildren(...rows);
  };
  const watch = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) fill(blocks[entry.target.dataset.block]);
  }, { root: scroller, rootMargin: '500px' });
  for (let from = 0; from < count; from += SIZE) {
    const to = Math.min(count, from + SIZE);
    const node = el('div', { role: 'none', 'data-block': blocks.length, style: { height: (to - from) * height + 'px' } });
    blocks.push({ node, from, to, full: false });
    root.append(node);
  }
  if (blocks.length) fill(blocks[0]);
  for (const block of blocks) if (!block.full) watch.observe(block.node);
  return {
    node: root,
    count,
    stop: () => watch.disconnect(),
    made: () => blocks.filter(block => block.full).flatMap(block => [...block.node.children].map((node, i) => [block.from + i, node])),
    at(i) { const block = blocks[Math.floor(i / SIZE)]; fill(block); return block.node.children[i - block.from]; },
  };
};
