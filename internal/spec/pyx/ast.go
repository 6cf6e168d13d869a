package pyx

// An expr is an expression; pos is where an error about it points.
type expr interface{ pos() Pos }

// A stmt is a statement.
type stmt interface{ pos() Pos }

// at is embedded in every node.
type at struct{ p Pos }

func (a at) pos() Pos { return a.p }

type (
	nameExpr struct {
		at
		id string
	}
	constExpr struct {
		at
		val Value
	}
	fstrExpr struct {
		at
		parts []fpart
	}
	fpart struct {
		lit  string
		x    expr // nil: the literal
		conv byte // 'r', 's' or 0
		spec string
	}
	listExpr struct {
		at
		xs []expr
	}
	tupleExpr struct {
		at
		xs []expr
	}
	setExpr struct {
		at
		xs []expr
	}
	dictExpr struct {
		at
		keys, vals []expr
	} // a nil key spreads its value
	compExpr struct {
		at
		kind     byte // '[', '{', ':' for a dictionary, '(' for a generator
		key, elt expr
		clauses  []compClause
	}
	compClause struct {
		target, iter expr // a nil iter makes target a condition
	}
	unaryExpr struct {
		at
		op string
		x  expr
	}
	binExpr struct {
		at
		op   string
		l, r expr
	}
	boolExpr struct {
		at
		and bool
		xs  []expr
	}
	cmpExpr struct {
		at
		l   expr
		ops []string
		rs  []expr
	}
	condExpr struct {
		at
		cond, then, els expr
	}
	attrExpr struct {
		at
		x    expr
		name string
	}
	indexExpr struct {
		at
		x, i expr
	}
	sliceExpr struct {
		at
		x, lo, hi, step expr
	}
	callExpr struct {
		at
		fn   expr
		args []callArg
	}
	callArg struct {
		p    Pos
		name string // keyword, if any
		star int    // 1: *x, 2: **x
		x    expr
	}
	lambdaExpr struct {
		at
		fn *funcDef
	}
)

type (
	exprStmt struct {
		at
		x expr
	}
	assignStmt struct {
		at
		targets []expr
		x       expr
	}
	augStmt struct {
		at
		target expr
		op     string
		x      expr
	}
	ifStmt struct {
		at
		conds  []expr
		bodies [][]stmt
		els    []stmt
	}
	forStmt struct {
		at
		target, iter expr
		body, els    []stmt
	}
	whileStmt struct {
		at
		cond      expr
		body, els []stmt
	}
	defStmt struct {
		at
		fn         *funcDef
		decorators []expr
	}
	classStmt struct {
		at
		name       string
		bases      []expr
		body       []stmt
		decorators []expr
	}
	returnStmt struct {
		at
		x expr
	}
	jumpStmt struct {
		at
		ctl control
	}
	importStmt struct {
		at
		module, as string
	}
	fromStmt struct {
		at
		module    string
		names, as []string
	} // no names: everything
	withStmt struct {
		at
		x, target expr
		body      []stmt
	}
	tryStmt struct {
		at
		body         []stmt
		handlers     []handler
		els, finally []stmt
	}
	handler struct {
		class expr // nil catches everything
		as    string
		body  []stmt
	}
	raiseStmt struct {
		at
		x expr
	}
	assertStmt struct {
		at
		cond, msg expr
	}
	delStmt struct {
		at
		targets []expr
	}
	globalStmt struct {
		at
		names []string
	}
)

// A funcDef is the text of a function.
type funcDef struct {
	name   string
	params []param
	star   string // *args, if any
	kw     string // **kwargs, if any
	body   []stmt
	ret    expr // of a lambda
	p      Pos
}

type param struct {
	name   string
	def    expr // nil: required
	kwOnly bool
}
