package replica

import (
	"spinnet/canister/agent"
	"spinnet/canister/host"
)

// Two canisters of the main network that the icp command line asks when it
// makes a canister. They answer just that.
var (
	cyclesLedger  = must(agent.ParsePrincipal("um5iw-rqaaa-aaaaq-qaaba-cai"))
	cyclesMinting = must(agent.ParsePrincipal("rkp4c-7iaaa-aaaaa-aaaca-cai"))
)

// isLedger reports whether an id is that of one of the two.
func isLedger(id agent.Principal) bool { return id.Equal(cyclesLedger) || id.Equal(cyclesMinting) }

// ledger answers for the two canisters.
func (r *Replica) ledger(id, caller agent.Principal, method string, arg []byte) host.Answer {
	var out any
	switch {
	case id.Equal(cyclesMinting) && method == "get_default_subnets":
		out = agent.Vec{r.subnet}
	case id.Equal(cyclesLedger) && method == "icrc1_balance_of":
		out = agent.N(host.Cycles)
	case id.Equal(cyclesLedger) && method == "create_canister":
		made, reject := r.createFromLedger(caller, arg)
		if reject != nil {
			return host.Answer{Reject: reject}
		}
		out = agent.V("Ok", agent.Record{agent.F("block_id", agent.N(1)), agent.F("canister_id", made.id)})
	default:
		return host.Answer{Reject: host.Rejectf(host.DestinationInvalid, host.MethodNotFound, "This replica's stand-in for canister %v has no method '%s'", id, method)}
	}
	reply, err := agent.EncodeArgs(out)
	if err != nil {
		return host.Answer{Reject: host.Rejectf(host.SysFatal, host.Trapped, "%v", err)}
	}
	return host.Answer{Reply: reply}
}

// createFromLedger makes a canister with the settings that the ledger's
// argument nests: opt record { settings : opt record { … } }.
func (r *Replica) createFromLedger(caller agent.Principal, arg []byte) (*canister, *host.RejectError) {
	st := state{controllers: []agent.Principal{caller}}
	values, err := agent.DecodeArgs(arg, nil)
	if err == nil && len(values) > 0 {
		in, _ := values[0].(agent.Record)
		o, _ := in.Get("creation_args").(agent.Opt)
		args, _ := o.Value.(agent.Record)
		o, _ = args.Get("settings").(agent.Opt)
		settings, _ := o.Value.(agent.Record)
		err = st.apply(settings)
	}
	if err != nil {
		return nil, host.Rejectf(host.CanisterError, host.ContractViolation, "create_canister: %v", err)
	}
	c, reject := r.create(st.controllers)
	if reject != nil {
		return nil, reject
	}
	if err := r.saveIndex(); err != nil {
		return nil, host.Rejectf(host.SysFatal, host.Trapped, "%v", err)
	}
	return c, nil
}
