<?php

namespace App\Jobs;

use App\Models\Note;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;

/** Done by `queue:work`, a service of the primary. */
class CountWords implements ShouldQueue
{
    use Dispatchable;

    public function __construct(private int $note)
    {
    }

    public function handle(): void
    {
        $note = Note::findOrFail($this->note);
        $note->words = str_word_count($note->text);
        $note->save();
    }
}
