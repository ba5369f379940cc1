// SPDX-License-Identifier: MIT
//
// Safety of the lock protocol: lease, fencing token, queue and hand-over, renewal, retention.
// Every interleaving of N clients, a server and a store is tried up to a horizon in time. Messages
// take any time, replies and grants may be lost, a client may stop anywhere for any time (no step
// is ever forced), which is also how it dies. All clocks run alike: the allowance for drift is
// nothing here.
//
// What must hold, as assertions:
//   exclusion   two clients never both believe, by their own rule of validity, that they hold
//   fences      each grant's token is larger than all before
//   store       a store that turns lower tokens away takes writes in the order of the grants only
//
// The protocol as it is passes. Each of these macros breaks one rule and must fail:
//   NO_FENCE                the store takes every write
//   COUNTER  with FAILOVER  tokens from a counter, not from the clock
//   AT_ONCE  with FAILOVER  the new master's clock is not past the last token
//   UNFENCED with FAILOVER  exclusion is asked of a failover, too
//   FROM_RECEIPT            a grant's validity from its receipt
//   FROM_REPLY              a lease's validity from the reply, not from before the request
//   OLD_TTL                 a repeated acquire is told the old token and gets no new time
//   PLAIN_DELETE            a release frees the lock whoever holds it
//   RETAIN_UNCHECKED        a retained lease is used again without a look at its deadline
//   RETAIN_SAME_FENCE       a retained lease is used again under the same token
// Variants that must pass: none, FAILOVER, RETAIN.

#ifndef N
#define N 2
#endif
#ifndef HORIZON
#define HORIZON 5
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
// How many there are in all.
#ifndef RETRIES
#define RETRIES 1
#endif
#ifndef RENEWALS
#define RENEWALS 1
#endif
#ifndef LOST_REPLIES
#define LOST_REPLIES 1
#endif
#ifndef TTL
#define TTL 2
#endif
#define GRANT_TTL 1
// Tokens that fit between two ticks of the clock.
#define UNIT 8

#if defined(RETAIN_UNCHECKED) || defined(RETAIN_SAME_FENCE)
#define RETAIN
#endif

mtype = { ACQUIRE, RELEASE, RENEW, GRANTED, QUEUED, RENEWED, LOST };

// What, token. In order, as on one connection.
chan request[N] = [2] of { mtype, byte };
// What, fence, place in the order of grants, server time.
chan reply[N] = [1] of { mtype, byte, byte, byte };
// Token, fence, place in the order of grants, server time.
chan grant[N] = [1] of { byte, byte, byte, byte };

typedef Server {
    byte holder;   // 1 + its client; 0: none.
    byte token;    // Of the holder.
    byte expires;  // The first time at which the lock is free again.
    byte fence;    // The last token given out or reserved.
    byte waiting;
    byte queue[N];       // 1 + a client, the first in front.
    byte queue_token[N]  // Of the client at that place.
};

Server master;
#ifdef FAILOVER
Server replica;
bool failed_over;
byte last_write;
#endif

byte now;
byte retries, renewals, lost_replies;
// What each client believes: it holds before this time.
byte valid_until[N];

// The order of grants, which no real system knows, doubled to leave room for a retained lease.
byte grants;
byte last_fence;

// Writes under way to the store; two for each client: of a lease and of the same lease retained.
bool under_way[2 * N];
byte write_fence[2 * N];
byte write_order[2 * N];
byte store_fence;
byte store_order;

inline advance_fence() {
#ifdef COUNTER
    master.fence++;
#else
    if
    :: master.fence >= now * UNIT -> master.fence++
    :: else -> master.fence = now * UNIT
    fi;
#endif
    grants = grants + 2;
#ifndef NO_FENCE
    assert(master.fence > last_fence);
#endif
    fence = master.fence;
    last_fence = fence;
#ifdef RETAIN
    // One more is reserved for the retained lease.
    master.fence++;
    last_fence++;
#endif
}

inline forget_waiter(client) {
    i = 0;
    do
    :: i < master.waiting && master.queue[i] == client + 1 -> break
    :: i < master.waiting && master.queue[i] != client + 1 -> i++
    :: i >= master.waiting -> break
    od;
    if
    :: i < master.waiting ->
        master.waiting--;
        do
        :: i < master.waiting ->
            master.queue[i] = master.queue[i + 1];
            master.queue_token[i] = master.queue_token[i + 1];
            i++
        :: else -> break
        od;
        master.queue[master.waiting] = 0;
        master.queue_token[master.waiting] = 0
    :: else
    fi
}

inline join_queue(client, its_token) {
    i = 0;
    do
    :: i < master.waiting && master.queue[i] != client + 1 -> i++
    :: else -> break
    od;
    if
    :: i == master.waiting -> master.queue[i] = client + 1; master.waiting++
    :: else
    fi;
    master.queue_token[i] = its_token
}

inline pass_on() {
    master.holder = 0;
    master.token = 0;
    master.expires = 0;
    do
    :: master.waiting == 0 -> break
    :: master.waiting > 0 ->
        next = master.queue[0] - 1;
        next_token = master.queue_token[0];
        forget_waiter(next);
        if
        :: true  // It seems to be dead, and is left out: it may well live.
        :: true ->
            master.holder = next + 1;
            master.token = next_token;
            master.expires = now + GRANT_TTL;
            advance_fence();
            if
            :: nfull(grant[next]) -> grant[next]!next_token, fence, grants, now
            :: true  // A message to a subscriber is only a hint.
            fi;
            break
        fi
    od
}

proctype server() {
    byte sender, token, fence, next, next_token, i;
    mtype what;
end:
    do
    :: atomic {
        // Any client's next request.
        if
        :: request[0]?what, token -> sender = 0
        :: request[1]?what, token -> sender = 1
#if N > 2
        :: request[2]?what, token -> sender = 2
#endif
        fi;
        if
        :: what == ACQUIRE && master.holder == sender + 1 && master.token == token ->
#ifdef OLD_TTL
            reply[sender]!GRANTED, master.fence, grants, now
#else
            master.expires = now + TTL;
            advance_fence();
            reply[sender]!GRANTED, fence, grants, now
#endif
        :: what == ACQUIRE && master.holder == 0 && master.waiting == 0 ->
            master.holder = sender + 1;
            master.token = token;
            master.expires = now + TTL;
            advance_fence();
            reply[sender]!GRANTED, fence, grants, now
        :: what == ACQUIRE && master.holder == 0 && master.waiting > 0 ->
            join_queue(sender, token);
            reply[sender]!QUEUED, 0, 0, now;
            pass_on()
        :: what == ACQUIRE && master.holder != 0 &&
           !(master.holder == sender + 1 && master.token == token) ->
            join_queue(sender, token);
            reply[sender]!QUEUED, 0, 0, now
        :: what == RENEW && master.holder == sender + 1 && master.token == token ->
            master.expires = now + TTL;
            reply[sender]!RENEWED, 0, 0, now
        :: what == RENEW && !(master.holder == sender + 1 && master.token == token) ->
            reply[sender]!LOST, 0, 0, now
        :: what == RELEASE ->
            i = 0;
            do
            :: i < master.waiting &&
               !(master.queue[i] == sender + 1 && master.queue_token[i] == token) -> i++
            :: else -> break
            od;
            if
            :: i < master.waiting -> forget_waiter(sender)
            :: else
            fi;
            if
            :: master.holder == sender + 1 && master.token == token -> pass_on()
            :: master.holder == 0 -> pass_on()
#ifdef PLAIN_DELETE
            :: master.holder != 0 && !(master.holder == sender + 1 && master.token == token) ->
                pass_on()
#else
            :: master.holder != 0 && !(master.holder == sender + 1 && master.token == token)
#endif
            fi
        fi;
#ifdef FAILOVER
        last_write = now;
#endif
        sender = 0; token = 0; fence = 0; next = 0; next_token = 0; i = 0; what = 0
    }
    od
}

// Believes from now on, and until `time`, that it holds.
inline believe(time) {
    valid_until[me] = time;
#if !defined(FAILOVER) || defined(UNFENCED)
    other = 0;
    do
    :: other < N ->
        assert(other == me || valid_until[me] <= now || valid_until[other] <= now);
        other++
    :: else -> break
    od;
    other = 0
#endif
}

inline min_of(result, a, b) {
    if
    :: a < b -> result = a
    :: else -> result = b
    fi
}

// A write of the lease, or of the retained lease. It checks that it holds, and may then be stopped
// for any time before its write arrives.
inline write_to_store(slot) {
    valid_until[me] > now && !under_way[slot] && !wrote;
    under_way[slot] = true;
    write_fence[slot] = fence;
    write_order[slot] = order;
    wrote = true
}

proctype client(byte me) {
    byte token, sent, asked_at, told_at, fence, order, time;
    bool wrote, retained;
    byte its_token, other;
    mtype what;

idle:
    atomic {
        fence = 0; order = 0; asked_at = 0; told_at = 0; sent = 0; time = 0;
        its_token = 0; what = 0; wrote = false; retained = false;
        if
        // One client has an attempt less: as good as all in their roles, and far fewer states.
        :: token < (me == N - 1 && ATTEMPTS > 1 -> ATTEMPTS - 1 : ATTEMPTS) && now < HORIZON ->
            token++;
            request[me]!ACQUIRE, token;
            sent = now;
            goto asked
        :: goto gone
        fi
    }

asked:
    atomic {
        if
        :: reply[me]?what, fence, order, time ->
            if
            :: what == GRANTED -> goto granted
            :: what == QUEUED -> asked_at = sent; told_at = time; sent = 0;
                fence = 0; order = 0; time = 0; goto waiting
            :: lost_replies < LOST_REPLIES ->
                // The connection broke before this reply: ask again under the same token.
                lost_replies++;
                fence = 0; order = 0; time = 0;
                request[me]!ACQUIRE, token;
                sent = now;
                goto asked
            fi
        fi
    }

granted:
    atomic {
#ifdef FROM_REPLY
        believe(now + TTL);
#else
        believe(sent + TTL);
#endif
        sent = 0; asked_at = 0; told_at = 0; time = 0;
        goto holding
    }

waiting:
    atomic {
        if
        :: grant[me]?its_token, fence, order, time ->
            if
            :: its_token == token ->
#ifdef FROM_RECEIPT
                believe(now + GRANT_TTL);
#else
                // The grant may be older than the reply: then it is over.
                if
                :: asked_at + time > told_at -> time = asked_at + time - told_at
                :: else -> time = 0
                fi;
                min_of(time, now, time);
                believe(time + GRANT_TTL);
#endif
                time = 0; asked_at = 0; told_at = 0;
                goto holding
            :: else -> fence = 0; order = 0; time = 0; goto waiting
            fi
        :: retries < RETRIES && now < HORIZON ->
            retries++;
            request[me]!ACQUIRE, token;
            sent = now;
            goto asked
        :: now < HORIZON -> goto gives_back
        fi
    }

holding:
    atomic {
        if
#ifdef WRITES
        :: valid_until[me] > now && !wrote && !retained && !under_way[2 * me] ->
            write_to_store(2 * me);
            goto holding
#endif
#if defined(RETAIN) && defined(WRITES)
        :: valid_until[me] > now && !wrote && retained && !under_way[2 * me + 1] ->
            write_to_store(2 * me + 1);
            goto holding
#endif
#ifdef RETAIN
        // Released by its thread and taken by the next, with no word to the server.
#ifdef RETAIN_UNCHECKED
        :: !retained -> valid_until[me] = 0; believe(now + 1);
#else
        :: !retained && valid_until[me] > now ->
#endif
            retained = true;
            wrote = false;
#ifndef RETAIN_SAME_FENCE
            fence++;
#endif
            order++;
            goto holding
#endif
        :: valid_until[me] > now && renewals < RENEWALS && now < HORIZON ->
            request[me]!RENEW, token;
            sent = now;
            renewals++;
            goto renewing
        :: goto gives_back
        fi
    }

renewing:
    atomic {
        if
        :: reply[me]?what, _, _, time ->
            time = 0;
            if
            // What ran out does not come back to life.
            :: what == RENEWED && valid_until[me] > now ->
#ifdef FROM_REPLY
                believe(now + TTL)
#else
                believe(sent + TTL)
#endif
            :: else
            fi;
            sent = 0;
            what = 0;
            goto holding
#ifdef WRITES
        :: valid_until[me] > now && !wrote && !retained && !under_way[2 * me] ->
            write_to_store(2 * me);
            goto renewing
#endif
        fi
    }

gives_back:
    atomic {
        valid_until[me] = 0;
        request[me]!RELEASE, token;
        goto idle
    }

gone:
    skip
}

// A write arrives.
proctype store() {
    byte slot;
end:
    do
    :: atomic {
        if
        :: under_way[0] -> slot = 0
        :: under_way[2] -> slot = 2
#ifdef RETAIN
        :: under_way[1] -> slot = 1
        :: under_way[3] -> slot = 3
#endif
#if N > 2
        :: under_way[4] -> slot = 4
#endif
        fi;
        if
#ifdef NO_FENCE
        :: true ->
#else
        :: write_fence[slot] >= store_fence ->
#endif
            assert(write_order[slot] >= store_order);
            store_fence = write_fence[slot];
            store_order = write_order[slot]
        :: else
        fi;
        under_way[slot] = false;
        write_fence[slot] = 0;
        write_order[slot] = 0;
        slot = 0
    }
    od
}

proctype clock() {
    byte who;
end:
    do
    :: atomic {
        now < HORIZON -> now++;
        // What has run out is forgotten, for fewer states.
        if
        :: master.holder != 0 && master.expires <= now ->
            master.holder = 0; master.token = 0; master.expires = 0
        :: else
        fi;
        do
        :: who < N && valid_until[who] <= now -> valid_until[who] = 0; who++
        :: who < N && valid_until[who] > now -> who++
        :: who == N -> break
        od;
        who = 0
    }
    od
}

#ifdef FAILOVER
inline copy(to, from) {
    to.holder = from.holder;
    to.token = from.token;
    to.expires = from.expires;
    to.fence = from.fence;
    to.waiting = from.waiting;
    place = 0;
    do
    :: place < N ->
        to.queue[place] = from.queue[place];
        to.queue_token[place] = from.queue_token[place];
        place++
    :: else -> break
    od;
    place = 0
}

// Copies the master now and then, and once takes its place.
proctype failover() {
    byte place;
    bool copied;
end:
    do
    :: d_step { !failed_over && !copied -> copy(replica, master); copied = true }
#ifdef AT_ONCE
    :: d_step { !failed_over -> copy(master, replica); failed_over = true }
#else
    :: d_step { !failed_over && now > last_write -> copy(master, replica); failed_over = true }
#endif
    od
}
#endif

init {
    atomic {
        run server();
#ifdef WRITES
        run store();
#endif
        run clock();
#ifdef FAILOVER
        run failover();
#endif
        run client(0);
        run client(1);
#if N > 2
        run client(2)
#endif
    }
}
