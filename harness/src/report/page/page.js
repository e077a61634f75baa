// Ties list, view, search and keyboard together.
unpack().then(run => {
  const find = finder(run), view = makeView(run, find), list = makeList(run, find, view.show);
  const parts = [`${run.rows.length} scenario${run.rows.length === 1 ? '' : 's'} on ${run.deployments.length} deployment${run.deployments.length === 1 ? '' : 's'} in ${run.took.toFixed(1)} s`,
    ...run.not_run.map(([name]) => `${name} did not run`), ...(run.unclaimed.length ? [`${run.unclaimed.length} for no deployment of this run`] : [])];
  $('sum').textContent = parts.join('; ');
  $('sum').title = [...run.not_run.map(pair => pair.join(': ')), ...run.unclaimed].join('\n');
  $('search').addEventListener('input', () => { list.draw(); view.hits(); });
  $('keys').addEventListener('click', () => $('help').showModal());
  const inTree = (item, key) => {
    const { fall } = item.parentNode.parentNode, open = item.getAttribute('aria-expanded') === 'true';
    const to = { j: item.at + 1, ArrowDown: item.at + 1, k: item.at - 1, ArrowUp: item.at - 1, Home: 0, End: fall.count - 1 }[key];
    if (to !== undefined) view.focus(fall, to);
    else if (key === 'Enter' || key === ' ') view.expand(item, !open);
    else if (key === 'ArrowRight') view.expand(item, true);
    else if (key === 'ArrowLeft') view.expand(item, false);
    else return false;
    return true;
  };
  const inList = key => {
    const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: 'first', End: 'last' }[key];
    if (step !== undefined) list.move(step);
    else if (key === 'Enter') view.enter();
    else if (key === 'ArrowRight') view.otherDeployment(1);
    else if (key === 'ArrowLeft') view.otherDeployment(-1);
    else return false;
    return true;
  };
  const pressed = ({ key, target }) => {
    if (target === $('search')) {
      if (key === 'Escape' && target.value) { target.value = ''; list.draw(); view.hits(); }
      else if (key === 'Escape' || key === 'Enter' || key === 'ArrowDown') { $('list').focus(); if (key !== 'Escape') list.move('first'); }
      else return false;
      return true;
    }
    if (key === '/') { $('search').focus(); $('search').select(); }
    else if (key === '?') $('help').showModal();
    else if (key === 'Escape') $('list').focus();
    else if (key === 'n' || key === 'N') view.nextHit(key === 'n' ? 1 : -1);
    else if (target.closest('button, summary, a')) return false;
    else if (target.matches('[role=treeitem]')) return inTree(target, key);
    else if (target === document.body || target === $('list') || (target === $('view') && 'jk'.includes(key))) return inList(key);
    else return false;
    return true;
  };
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey || $('help').open) return;
    if (pressed(event)) event.preventDefault();
  });
  list.draw();
  const first = list.first();
  if (first) list.select(first); else $('view').replaceChildren(el('p', {}, 'No scenario ran.'));
  $('list').focus({ preventScroll: true });
  performance.mark('ready');
}).catch(error => { $('view').textContent = `The report cannot be unpacked: ${error}`; throw error; });
