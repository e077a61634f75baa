// One scenario: its deployments side by side, with a waterfall for each request.
const DERIVED = 'A segment of AWS X-Ray, derived from the life of the environment: not received, and no span of the service';
const duration = us => us < 1000 ? us + ' µs' : us < 1e6 ? (us / 1000).toFixed(us < 10000 ? 2 : 1) + ' ms' : (us / 1e6).toFixed(2) + ' s';
const makeView = (run, find) => {
  const { text } = run;
  let row = null, open = [], waterfalls = [], hitAt = null;
  const pairs = list => {
    const rows = [];
    for (let i = 0; i < list.length; i += 2) rows.push(el('tr', {}, el('td', {}, text(list[i])), el('td', { class: 'mono' }, text(list[i + 1]))));
    return rows.length ? el('table', {}, ...rows) : null;
  };
  const logLine = packed => {
    const l = log(packed), level = text(l.level);
    const bad = /^(error|fatal|critical)/i.test(level) ? ' failed' : '';
    return el('details', { class: 'log' }, el('summary', {}, el('span', { class: 'level' + bad }, level), text(l.message),
      el('span', { class: 'badge' }, text(l.origin))), pairs(l.fields));
  };
  // Lines begin with a word of what they are about; trees keep their shape.
  const fault = cell => el('div', { class: 'fault ' + VERDICT[cell.verdict], role: 'group', 'aria-label': 'What is wrong' },
    ...text(cell.message).split('\n').map(line => {
      if (/^ {11,}/.test(line)) return el('div', { class: 'tree' }, line);
      const [, label, rest] = /^(\S+)(\s{2,}.*)$/.exec(line) ?? [];
      return label ? el('div', { class: 'about' }, el('b', {}, label + ' '), el('span', {}, rest.trimStart())) : el('div', {}, line);
    }));
  const body = s => el('div', { class: 'body', role: 'group', click: event => event.stopPropagation() },
    el('table', {}, ...[[s.derived ? 'segment id' : 'span id', text(s.id)], ...(s.derived ? [] : [['service', text(s.service)],
      ['status', text(s.status)]]), ['starts at', duration(s.start)]].map(([key, value]) => el('tr', {}, el('td', {}, key), el('td', { class: 'mono' }, value)))),
    s.attributes.length ? el('h5', {}, 'Attributes') : null, pairs(s.attributes),
    ...s.events.flatMap(([name, attributes]) => [el('h5', {}, 'Event ' + text(name)), pairs(attributes)]),
    s.logs.length ? el('h5', {}, 'Log records') : null, ...s.logs.map(logLine));
  const expand = (node, wanted) => {
    const is = node.getAttribute('aria-expanded') === 'true';
    if (is === wanted) return;
    if (is) node.lastChild.remove();
    else node.append(body(span(node.packed)));
    node.setAttribute('aria-expanded', !is);
  };
  const waterfall = (s, label) => {
    // No spread: a hundred thousand arguments are more than an engine takes.
    const end = s.spans.reduce((end, packed) => { const p = span(packed); return Math.max(end, p.start + p.took); }, 1);
    const services = new Set(s.spans.map(packed => span(packed).service)).size;
    // Rows are made while they come into sight, and know then what the search has found.
    let found = new Set();
    const make = i => {
      const p = span(s.spans[i]), kind = text(p.kind);
      const bar = el('span', { class: `bar ${kind.replace(/\W/g, '')} ${text(p.status).replace(/\W/g, '')}`,
        style: { left: 100 * p.start / end + '%', width: 100 * p.took / end + '%' } });
      const name = el('span', { class: 'name', style: { 'padding-left': Math.min(p.depth, 16) * .9 + 'rem' }, title: text(p.name) },
        el('span', { class: 'what' }, p.depth > 16 ? `⋯${p.depth} ` : null, el('span', { class: 'kind' }, kind), text(p.name)),
        services > 1 && text(p.service) ? el('span', { class: 'badge' }, text(p.service)) : null,
        p.orphan ? el('span', { class: 'badge failed' }, 'orphan') : null,
        p.logs.length ? el('span', { class: 'badge' }, p.logs.length + (p.logs.length > 1 ? ' logs' : ' log')) : null);
      const classes = [p.derived ? 'derived' : '', found.has(i) ? 'hit' : ''].filter(Boolean).join(' ');
      const node = el('div', { role: 'treeitem', class: classes, 'aria-level': p.depth + 1, 'aria-expanded': 'false',
        'aria-posinset': i + 1, 'aria-setsize': s.spans.length, tabindex: i ? -1 : 0, title: p.derived ? DERIVED : '', click: () => {
          focus(fall, i);
          expand(node, node.getAttribute('aria-expanded') !== 'true');
        } }, el('div', { class: 'line' }, name, el('span', { class: 'track' }, bar), el('span', { class: 'time' }, duration(p.took))));
      node.packed = s.spans[i];
      node.at = i;
      return node;
    };
    const fall = lazy($('view'), s.spans.length, 27, make);
    fall.node.setAttribute('role', 'tree');
    fall.node.setAttribute('aria-label', label);
    fall.node.fall = fall;
    fall.spans = s.spans;
    fall.hits = found;
    fall.found = hits => {
      fall.hits = found = hits;
      for (const [i, node] of fall.made()) node.classList.toggle('hit', hits.has(i));
    };
    fall.end = end;
    waterfalls.push(fall);
    return fall;
  };
  const focus = (fall, i) => {
    for (const node of fall.node.querySelectorAll('[role=treeitem][tabindex="0"]')) node.tabIndex = -1;
    const node = fall.at(Math.max(0, Math.min(fall.count - 1, i)));
    node.tabIndex = 0;
    node.focus({ preventScroll: true });
    (node.getAttribute('aria-expanded') === 'true' ? node.firstChild : node).scrollIntoView({ block: 'nearest' });
  };
  const request = (packed, name) => {
    const s = story(packed), title = text(s.title), nodes = [el('h4', {}, title, ' ', el('code', {}, text(s.trace)))];
    if (s.spans.length) {
      const fall = waterfall(s, `Spans of ${title} on ${name}`);
      nodes.push(el('div', { class: 'axis', 'aria-hidden': 'true' }, el('span', {}, `${s.spans.length} span${s.spans.length > 1 ? 's' : ''}`),
        el('span', { class: 'ticks' }, el('span', {}, '0'), el('span', {}, duration(Math.round(fall.end / 2))), el('span', {}, duration(fall.end))), ''), fall.node);
    } else nodes.push(el('p', { class: 'dim' }, 'No span was received.'));
    if (s.loose.length) nodes.push(el('h5', {}, 'On no span'));
    return nodes.concat(s.loose.map(logLine));
  };
  const column = cell => {
    const name = text(run.deployments[cell.deployment]);
    return el('section', { 'aria-label': name }, el('h3', { class: VERDICT[cell.verdict] }, `${MARK[cell.verdict]} ${name}`),
      el('p', { class: 'dim' }, [`${VERDICT[cell.verdict]} in ${cell.took} ms`, ...cell.proofs.map(text)].join(' · ')),
      ...cell.advice.map(one => el('p', { class: 'advice' }, el('b', {}, 'Advice '), text(one))),
      ...(cell.verdict ? [el('p', { class: 'step mono' }, `${text(row.file)}:${cell.stepLine}  ${text(cell.step)}`), fault(cell)] : []),
      cell.stories.flatMap(packed => request(packed, name)),
      text(cell.evidence) ? el('p', { class: 'dim' }, 'Evidence: ', el('a', { href: './' + text(cell.evidence).split('/').map(encodeURIComponent).join('/') + '/' }, text(cell.evidence))) : null);
  };
  const show = (which, deployments) => {
    waterfalls.forEach(fall => fall.stop());
    [row, open, waterfalls, hitAt] = [which, deployments, [], null];
    const cells = row.cells.filter(Boolean);
    const toggle = (at, event) => show(row, event.shiftKey ? [at] : open.includes(at) ? (open.length > 1 ? open.filter(one => one !== at) : open)
      : [...open, at].sort((a, b) => a - b));
    const buttons = cells.map(({ deployment: at, verdict, took }) => el('button', { type: 'button', 'aria-pressed': open.includes(at),
      click: event => { toggle(at, event); $('view').querySelector(`.pick [data-at="${at}"]`)?.focus(); }, 'data-at': at },
      el('span', { class: VERDICT[verdict] }, MARK[verdict]), ` ${text(run.deployments[at])} `, el('span', { class: 'dim' }, took + ' ms')));
    if (cells.length > 1) buttons.push(el('button', { type: 'button', 'aria-pressed': open.length === cells.length,
      click: () => show(row, cells.map(cell => cell.deployment)) }, 'all'));
    $('view').replaceChildren(el('h2', {}, text(row.scenario)), el('p', { class: 'dim' }, `${text(row.feature)} · ${text(row.file)}:${row.line}`),
      el('div', { class: 'group pick', role: 'group', 'aria-label': 'Side by side' }, ...buttons),
      el('div', { class: 'columns' }, ...cells.filter(cell => open.includes(cell.deployment)).sort((a, b) => RANK[a.verdict] - RANK[b.verdict]).map(column)));
    $('view').scrollTop = 0;
    hits();
  };
  // Marks the spans that the search finds.
  const hits = () => {
    const words = find($('search').value);
    for (const fall of waterfalls) {
      const found = new Set();
      if (words.length) fall.spans.forEach((packed, i) => {
        const texts = [];
        textsOfSpan(packed, one => texts.push(one));
        if (words.every(word => texts.some(one => word[one]))) found.add(i);
      });
      fall.found(found);
    }
  };
  const nextHit = step => {
    const all = waterfalls.flatMap(fall => [...fall.hits].map(i => [fall, i]));
    if (!all.length) return;
    const at = all.findIndex(([fall, i]) => hitAt && fall === hitAt[0] && i === hitAt[1]);
    hitAt = all[(at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step + all.length) % all.length];
    focus(...hitAt);
  };
  const otherDeployment = step => {
    const all = row.cells.filter(Boolean).map(cell => cell.deployment);
    const to = all[all.indexOf(step > 0 ? open[open.length - 1] : open[0]) + step];
    if (to !== undefined) show(row, [to]);
  };
  const enter = () => waterfalls.length ? focus(waterfalls[0], 0) : $('view').focus();
  return { show, hits, nextHit, otherDeployment, enter, expand, focus };
};
