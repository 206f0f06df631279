class CreateNotes < ActiveRecord::Migration[6.1]
  def change
    create_table :notes do |t|
      t.string :text, null: false
      t.integer :views, null: false, default: 0
    end
  end
end
