// The list of scenarios: a row each, a mark a deployment, failures first.
const makeList = (run, find, chosen) => {
  const shownVerdicts = new Set([0, 1, 2]), shownDeployments = new Set(run.deployments.keys());
  let items = [], rows = [], view = null, current = null;
  const short = file => file.replace(/^.*features\//, '');
  const seen = (row, words) => row.cells.filter(cell => cell && shownDeployments.has(cell.deployment) && shownVerdicts.has(cell.verdict)
    && words.every(word => textsOfCell(run, cell).some(text => word[text])));
  const option = (item, position) => {
    const { row } = item, title = run.text(row.scenario);
    const marks = [...shownDeployments].sort((a, b) => a - b).map(at => {
      const cell = row.cells[at], name = run.text(run.deployments[at]);
      if (!cell) return el('span', { class: 'dim', title: name + ': not for it' }, '·');
      return el('span', { class: VERDICT[cell.verdict], title: `${name}: ${VERDICT[cell.verdict]}`, click: event => { event.stopPropagation();
        select(row, [cell.deployment]); } }, MARK[cell.verdict]);
    });
    const bad = row.cells.filter(cell => cell && cell.verdict > 0 && shownDeployments.has(cell.deployment));
    const label = `${title}, ${bad.length ? bad.map(cell => `${VERDICT[cell.verdict]} on ${run.text(run.deployments[cell.deployment])}`).join(', ') : 'passed'}`;
    return el('div', { role: 'option', id: 'row-' + row.index, 'aria-selected': row === current, 'aria-label': label, 'aria-posinset': position + 1,
      'aria-setsize': rows.length, title: `${run.text(row.file)}:${row.line}`, click: () => select(row) },
      el('span', { class: 'title' }, title), el('span', { class: 'marks', 'aria-hidden': 'true' }, ...marks));
  };
  const draw = () => {
    const words = find($('search').value);
    rows = [];
    for (const row of run.rows) {
      const cells = seen(row, words);
      if (cells.length) rows.push({ row, rank: Math.min(...cells.map(cell => RANK[cell.verdict])) });
    }
    rows.sort((a, b) => a.rank - b.rank || a.row.index - b.row.index);
    items = [];
    let last = null;
    rows.forEach((item, position) => {
      const head = item.rank === 0 ? 'Failed' : item.rank === 1 ? 'Errored' : short(run.text(item.row.file));
      if (head !== last) items.push({ head: last = head });
      item.position = position;
      item.at = items.push(item) - 1;
    });
    view?.stop();
    view = lazy($('list'), items.length, 28, i => items[i].head !== undefined ? el('div', { class: 'head', role: 'none' }, items[i].head)
      : option(items[i], items[i].position));
    $('list').replaceChildren(rows.length ? view.node : el('p', { class: 'head' }, 'Nothing fits the search and the filters.'));
    $('found').textContent = rows.length === run.rows.length ? 'All scenarios' : `${rows.length} of ${run.rows.length} scenarios`;
    mark();
  };
  const mark = () => {
    for (const node of $('list').querySelectorAll('[aria-selected=true]')) node.setAttribute('aria-selected', 'false');
    const item = rows.find(one => one.row === current);
    if (!item) return $('list').removeAttribute('aria-activedescendant');
    const node = view.at(item.at);
    node.setAttribute('aria-selected', 'true');
    node.scrollIntoView({ block: 'nearest' });
    $('list').setAttribute('aria-activedescendant', node.id);
  };
  const select = (row, deployments) => {
    current = row;
    mark();
    const cells = row.cells.filter(cell => cell && shownDeployments.has(cell.deployment));
    const bad = cells.filter(cell => cell.verdict > 0).slice(0, 2);
    chosen(row, deployments ?? (bad.length ? bad : cells.slice(0, 1)).map(cell => cell.deployment));
  };
  const move = step => {
    if (!rows.length) return;
    const at = rows.findIndex(item => item.row === current);
    const to = step === 'first' ? 0 : step === 'last' ? rows.length - 1 : Math.min(rows.length - 1, Math.max(0, at + step));
    if (to !== at) select(rows[to].row);
  };
  const toggle = (set, what) => event => {
    set.has(what) ? set.delete(what) : set.add(what);
    event.currentTarget.setAttribute('aria-pressed', set.has(what));
    draw();
  };
  const count = verdict => run.rows.reduce((sum, row) => sum + row.cells.filter(cell => cell?.verdict === verdict).length, 0);
  for (const verdict of [1, 2, 0]) $('verdicts').append(el('button', { type: 'button', class: VERDICT[verdict], 'aria-pressed': 'true',
    click: toggle(shownVerdicts, verdict) }, `${MARK[verdict]} ${count(verdict)} ${VERDICT[verdict]}`));
  if (run.deployments.length > 1) run.deployments.forEach((name, at) => $('deployments').append(el('button', { type: 'button',
    'aria-pressed': 'true', title: 'Only this one: with Shift', click: event => {
      if (!event.shiftKey) return toggle(shownDeployments, at)(event);
      shownDeployments.clear();
      shownDeployments.add(at);
      [...$('deployments').children].forEach((button, i) => button.setAttribute('aria-pressed', i === at));
      draw();
    } }, run.text(name))));
  return { draw, select, move, first: () => rows[0]?.row };
};
