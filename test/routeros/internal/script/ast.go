package script

// Program is a parsed script.
type Program struct {
	Source string
	Body   *Block
}

// Block is a sequence of statements with its own variables.
type Block struct{ Stmts []Stmt }

// Stmt is one command line: a *CommandNode, a *Block, or an expression.
type Stmt interface{}

// CommandNode is one use of a command.
type CommandNode struct {
	Menu *Menu
	Spec *Command
	Args map[string]Expr
	// Unset names the properties given as !name.
	Unset []string
	Where Expr
	// Text is the command as written.
	Text string
	pos  int
}

// Expr is anything that has a value.
type Expr interface{}

type (
	// literalNode is a bare word. Raw is kept because a menu reads its
	// parameters from text: slot=0x10 is the name 0x10, not 16.
	literalNode struct {
		raw   string
		value Value
	}
	// stringNode is a quoted string with variables and substitutions in it.
	stringNode struct{ parts []Expr }
	varNode    struct{ name string }
	// propNode is a property of the item that a where looks at.
	propNode struct{ name string }
	// deadNode is an unquoted word in a where that RouterOS reads as
	// something else than the admin meant; comparisons with it never hold.
	deadNode  struct{ raw string }
	arrayNode struct {
		items []arrayItem
	}
	arrayItem struct {
		key   Expr
		value Expr
	}
	// substNode is [ … ].
	substNode struct{ body *Block }
	codeNode  struct{ body *Block }
	unaryNode struct {
		op string
		x  Expr
	}
	binaryNode struct {
		op   string
		x, y Expr
	}
	indexNode struct{ x, key Expr }
	// callNode runs code held in a variable.
	callNode struct {
		fn         Expr
		named      map[string]Expr
		positional []Expr
		text       string
	}
)
