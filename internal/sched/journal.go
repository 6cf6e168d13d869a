package sched

// A journal holds what a plan has changed of the index, as it was before: each
// host and each node of a tree once. To undo a plan is to copy that back, which
// costs less than to take each machine out of its tree and put it back again.
type journal struct {
	open  bool
	plan  uint32   // a number for each plan
	marks []marked // by slot
	hosts []hostWas
	nodes []nodeWas
	roots [allTrees][shelves]int32
}

// marked says for which plan the host and the node of a slot were written down last.
type marked struct{ host, node uint32 }

type hostWas struct {
	slot int32
	host host
}

type nodeWas struct {
	slot int32
	node node
}

// begin opens the journal for a plan.
func (x *Index) begin() {
	j := &x.journal
	j.forget()
	if j.plan++; j.plan == 0 { // it went round: no mark of long ago may be taken for one of now
		clear(j.marks)
		j.plan = 1
	}
	for len(j.marks) < len(x.hosts) {
		j.marks = append(j.marks, marked{})
	}
	j.open, j.roots = true, x.roots
}

// forget closes the journal. The room for what it holds is kept for the next plan.
func (j *journal) forget() {
	clear(j.hosts) // they name tasks' rows
	j.open, j.hosts, j.nodes = false, j.hosts[:0], j.nodes[:0]
}

// writeHost notes a host as it is before it is changed for the first time.
func (x *Index) writeHost(n int32) {
	j := &x.journal
	if j.open && j.marks[n].host != j.plan {
		j.marks[n].host = j.plan
		j.hosts = append(j.hosts, hostWas{n, x.hosts[n]})
	}
}

// writeNode does so for a node.
func (x *Index) writeNode(n int32) {
	j := &x.journal
	if j.open && j.marks[n].node != j.plan {
		j.marks[n].node = j.plan
		j.nodes = append(j.nodes, nodeWas{n, x.nodes[n]})
	}
}

// revert makes the hosts and the trees what they were when the journal was
// opened. For searches and boards each host that changed has changed once more.
func (x *Index) revert() {
	j := &x.journal
	x.roots = j.roots
	for i := range j.nodes {
		x.nodes[j.nodes[i].slot] = j.nodes[i].node
	}
	for i := range j.hosts {
		n := j.hosts[i].slot
		x.hosts[n] = j.hosts[i].host
		if x.withGPU[n] {
			x.changed(n)
		}
		x.note(n)
	}
	j.forget()
}
