// SPDX-License-Identifier: MIT
//
// Nobody is forgotten: how long a live waiter can wait while no live client holds the lock. Time
// goes in ticks, and only when all that was due has been done; a request and its answer take none.
// A live holder renews, and may hold for ever. Clients come, give up and go as they like; a holder
// or a waiter may die, and a grant may be lost, FAULTS times in all.
//
// What must hold, as an assertion: a live waiter waits beside a lock that no live client holds
//   at most TTL + GRANT_TTL * (N - 1) * FAULTS, whoever dies;
//   at most GRANT_TTL * (N - 1) * FAULTS, if only waiters die (WAITERS).
// Not GRANT_TTL for each fault: a waiter asks again after GRANT_TTL * (rank + 1), and its rank is
// that of the last time it asked. Those before it may since have been served, and the one before it
// have died with the grant in its hands. N - 1 is the highest rank + 1.
//
// The protocol as it is passes. PROMISED, which asks for GRANT_TTL * FAULTS with WAITERS, fails. Each of these macros breaks one rule and must fail:
//   NO_RETRY                 a waiter relies on its grant and does not ask again
//   FULL_GRANT with WAITERS  a grant has the full time to live
//   NO_PASSING with WAITERS and FAULTS=0    a release leaves the waiters to their retries
//   SLEEP_OUT with WAITERS   a waiter sleeps as long as the lease of the holder may last

#ifndef N
#define N 3
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#define TTL 10
#define GRANT_TTL 2

#if defined(PROMISED)
#define BOUND (GRANT_TTL * FAULTS)
#elif defined(WAITERS)
#define BOUND (GRANT_TTL * (N - 1) * FAULTS)
#else
#define BOUND (TTL + GRANT_TTL * (N - 1) * FAULTS)
#endif
#ifdef FULL_GRANT
#define GIVEN TTL
#else
#define GIVEN GRANT_TTL
#endif

mtype = { IDLE, WAITING, HOLDING, DEAD };

mtype state[N];
byte timer[N];   // Ticks until a waiter asks again.
byte beside[N];  // Ticks that it has waited beside no live holder.

byte holder;  // 1 + a client; 0: none.
byte left;    // Ticks of its lease.
byte waiting;
byte queue[N];
byte faults;

inline leave(who) {
    i = 0;
    do
    :: i < waiting && queue[i] != who + 1 -> i++
    :: else -> break
    od;
    if
    :: i < waiting ->
        waiting--;
        do
        :: i < waiting -> queue[i] = queue[i + 1]; i++
        :: else -> break
        od;
        queue[waiting] = 0
    :: else
    fi
}

inline pass_on() {
    holder = 0;
    left = 0;
    do
    :: waiting == 0 -> break
    :: waiting > 0 ->
        next = queue[0] - 1;
        leave(next);
        if
        :: state[next] == DEAD  // Nobody listens for it any more.
        :: state[next] != DEAD ->
            holder = next + 1;
            left = GIVEN;
            if
            :: true -> state[next] = HOLDING; timer[next] = 0; beside[next] = 0
            :: faults < FAULTS -> faults++  // The message is lost; or
            :: faults < FAULTS -> faults++; state[next] = DEAD; timer[next] = 0  // it dies.
            fi;
            break
        fi
    od
}

inline acquire(who) {
    if
    :: holder == who + 1 -> state[who] = HOLDING; left = TTL; timer[who] = 0; beside[who] = 0
    :: holder == 0 && waiting == 0 -> state[who] = HOLDING; holder = who + 1; left = TTL;
        timer[who] = 0; beside[who] = 0
    :: (holder != 0 && holder != who + 1) || (holder == 0 && waiting > 0) ->
        i = 0;
        do
        :: i < waiting && queue[i] != who + 1 -> i++
        :: else -> break
        od;
        if
        :: i == waiting -> queue[i] = who + 1; waiting++
        :: else
        fi;
        state[who] = WAITING;
#ifdef SLEEP_OUT
        timer[who] = TTL;
#else
        timer[who] = GRANT_TTL * (i + 1);
        if
        :: holder != 0 && left < timer[who] -> timer[who] = left
        :: else
        fi;
#endif
        if
        :: holder == 0 -> pass_on()
        :: else
        fi
    fi
}

inline release(who) {
    leave(who);
    if
    :: holder == who + 1 ->
#ifdef NO_PASSING
        holder = 0; left = 0
#else
        pass_on()
#endif
    :: holder == 0 && waiting > 0 -> pass_on()
    :: else
    fi
}

active proctype world() {
    byte who, i, next;
    bool due;
    do
    :: state[who] = IDLE; who++; if :: who == N -> break :: else fi
    od;
    who = 0;
end:
    do
    :: atomic {
        // Some client does something.
        select(who : 0 .. N - 1);
        if
        :: state[who] == IDLE -> acquire(who)
        :: state[who] == HOLDING -> state[who] = IDLE; release(who)
        :: state[who] == WAITING -> state[who] = IDLE; timer[who] = 0; beside[who] = 0; release(who)
#ifndef NO_RETRY
        :: state[who] == WAITING && timer[who] == 0 -> acquire(who)
#endif
#ifdef WAITERS
        :: state[who] == WAITING && faults < FAULTS ->
#else
        :: (state[who] == WAITING || state[who] == HOLDING) && faults < FAULTS ->
#endif
            faults++; state[who] = DEAD; timer[who] = 0; beside[who] = 0
        :: state[who] == DEAD
        fi;
        who = 0; i = 0; next = 0
    }
    :: atomic {
        // A tick, if nobody has anything due.
        due = false;
        who = 0;
        do
        :: who < N ->
#ifndef NO_RETRY
            due = due || (state[who] == WAITING && timer[who] == 0);
#endif
            who++
        :: else -> break
        od;
        !due;
        if
        :: holder == 0
        :: holder != 0 && state[holder - 1] == HOLDING -> left = TTL
        :: holder != 0 && state[holder - 1] != HOLDING ->
            left--;
            if
            :: left == 0 -> holder = 0
            :: else
            fi
        fi;
        who = 0;
        do
        :: who < N ->
            if
            :: timer[who] > 0 -> timer[who]--
            :: else
            fi;
            if
            :: state[who] == WAITING && (holder == 0 || state[holder - 1] != HOLDING) ->
                beside[who]++;
                assert(beside[who] <= BOUND)
            :: else -> beside[who] = 0
            fi;
            who++
        :: else -> break
        od;
        who = 0
    }
    od
}
