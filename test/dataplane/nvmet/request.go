package nvmet

// Identity is what becomes of a namespace's UUID when its export is opened anew.
type Identity string

// The identities.
const (
	IdentityKept   Identity = "kept"   // the same for one file, always
	IdentityRandom Identity = "random" // a new one each time
	IdentityNone   Identity = "none"   // neither UUID nor NGUID
)

// Off is how an export is switched off.
type Off string

// The ways to switch off.
const (
	OffUnlink  Off = "unlink"  // the subsystem leaves the port: hosts are thrown out
	OffDisable Off = "disable" // the namespace goes, the subsystem and its connections stay
)

// Behaviour is what is not known of the real array, so each is tried.
type Behaviour struct {
	Identity Identity `json:"identity"`
	Off      Off      `json:"off"`
	// GrowOnReopen: a host sees a grown size only after the export was reopened,
	// as with kernels before 5.8; otherwise it sees it as soon as it asks.
	GrowOnReopen bool `json:"growOnReopen"`
}

// Default is the behaviour one hopes for.
func Default() Behaviour {
	return Behaviour{Identity: IdentityKept, Off: OffUnlink}
}

// Verb is what a Request wants done.
type Verb string

// The verbs.
const (
	OpenPort  Verb = "open-port"  // listen on Port, maybe before any export is there
	Behave    Verb = "behave"     // as Behaviour says, from now on
	Create    Verb = "create"     // make File, Size bytes long
	Resize    Verb = "resize"     // give File Size bytes; an open export of it follows
	Copy      Verb = "copy"       // From to File
	Rename    Verb = "rename"     // From to File
	Remove    Verb = "remove"     // delete File
	ExportOn  Verb = "export-on"  // export File as NQN; anew if Slot is exported already
	ExportOff Verb = "export-off" // end the export of Slot
	Down      Verb = "down"       // the power goes: port and exports are gone
	Up        Verb = "up"         // the exports come back; open the port before or after
)

// Request is one thing to do.
type Request struct {
	Verb      Verb      `json:"verb"`
	File      string    `json:"file,omitempty"` // below Root, without a leading slash
	From      string    `json:"from,omitempty"`
	Size      int64     `json:"size,omitempty"` // bytes
	Slot      string    `json:"slot,omitempty"`
	NQN       string    `json:"nqn,omitempty"`
	AllowHost string    `json:"allowHost,omitempty"` // a host NQN; empty: any
	Port      int       `json:"port,omitempty"`
	Behaviour Behaviour `json:"behaviour,omitzero"`
}

// Reply is empty: what is not an error was done.
type Reply struct{}
