// SPDX-License-Identifier: GPL-2.0
/*
 * Who has issued a request? For hints, while some device gathers them.
 *
 * A request says nothing of it. It is who queues it, unless an I/O scheduler keeps
 * it back, and a worker of the kernel queues it then: so the scheduler's
 * tracepoint is watched too, where the issuer passes. What is found is noted under a hash of
 * the request's address, in one table for all devices, for as long as nobody
 * else gets the place: that is good enough for a guess.
 */
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/workqueue.h>
#include <trace/events/block.h>
#include "ublk_shmem_priv.h"

#define UBLK_SHMEM_ISSUERS_SHIFT	10

/* of each the request's hash, and the process: both at once */
static u64 ublk_shmem_issuers[1 << UBLK_SHMEM_ISSUERS_SHIFT];

static atomic_t ublk_shmem_watchers;	/* devices that may gather */

/* Held over what the tracepoint needs, so no other is held when it is taken. */
static DEFINE_MUTEX(ublk_shmem_watch_mutex);
static bool ublk_shmem_watching;
static unsigned long ublk_shmem_watch_until;	/* jiffies */

static u32 ublk_shmem_hash_request(const struct request *req)
{
	return hash_ptr(req, 32);
}

static u64 *ublk_shmem_issuer(u32 hash)
{
	return &ublk_shmem_issuers[hash >> (32 - UBLK_SHMEM_ISSUERS_SHIFT)];
}

void ublk_shmem_note_issuer(const struct request *req)
{
	u32 hash = ublk_shmem_hash_request(req);

	/* a worker of the kernel issues nothing of its own */
	if (!(current->flags & PF_KTHREAD))
		WRITE_ONCE(*ublk_shmem_issuer(hash),
			   (u64)hash << 32 | task_tgid_nr(current));
}

u32 ublk_shmem_issuer_of(const struct request *req)
{
	u32 hash = ublk_shmem_hash_request(req);
	u64 noted = READ_ONCE(*ublk_shmem_issuer(hash));

	return noted >> 32 == hash ? (u32)noted : 0;
}

static void ublk_shmem_stop_watching(struct work_struct *work);
static DECLARE_WORK(ublk_shmem_stop_work, ublk_shmem_stop_watching);

/* A request goes to the scheduler, of any device. */
static void ublk_shmem_inserted(void *data, struct request *req)
{
	if (time_after(jiffies, READ_ONCE(ublk_shmem_watch_until)))
		queue_work(system_long_wq, &ublk_shmem_stop_work);
	else
		ublk_shmem_note_issuer(req);
}

static void ublk_shmem_stop_watching(struct work_struct *work)
{
	mutex_lock(&ublk_shmem_watch_mutex);
	if (ublk_shmem_watching &&
	    time_after(jiffies, ublk_shmem_watch_until)) {
		unregister_trace_block_rq_insert(ublk_shmem_inserted, NULL);
		ublk_shmem_watching = false;
	}
	mutex_unlock(&ublk_shmem_watch_mutex);
}

void ublk_shmem_add_watcher(void)
{
	atomic_inc(&ublk_shmem_watchers);
}

void ublk_shmem_watch(unsigned long until)
{
	mutex_lock(&ublk_shmem_watch_mutex);
	if (!ublk_shmem_watching || time_after(until, ublk_shmem_watch_until))
		WRITE_ONCE(ublk_shmem_watch_until, until);
	/* on failure, or in a kernel without tracepoints, issuers are not known */
	if (!ublk_shmem_watching)
		ublk_shmem_watching =
			!register_trace_block_rq_insert(ublk_shmem_inserted, NULL);
	mutex_unlock(&ublk_shmem_watch_mutex);
}

void ublk_shmem_remove_watcher(void)
{
	if (!atomic_dec_and_test(&ublk_shmem_watchers))
		return;
	mutex_lock(&ublk_shmem_watch_mutex);
	/* another one may have come; it watches once the mutex is free */
	if (!atomic_read(&ublk_shmem_watchers) && ublk_shmem_watching) {
		unregister_trace_block_rq_insert(ublk_shmem_inserted, NULL);
		ublk_shmem_watching = false;
	}
	mutex_unlock(&ublk_shmem_watch_mutex);
	/* the module may go now */
	tracepoint_synchronize_unregister();
	flush_work(&ublk_shmem_stop_work);
}
